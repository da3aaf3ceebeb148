-- Every sweep looks for hosts whose keyring is not the newest; mostly there are none.
CREATE INDEX heartbeats_keyring ON heartbeats (keyring);
