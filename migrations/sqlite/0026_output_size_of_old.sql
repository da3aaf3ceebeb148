UPDATE output SET size = LENGTH(data);
