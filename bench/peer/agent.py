"""A plain agent: takes commands from its queue, verifies the signature, runs them, and sends signed results."""

import argparse
import json
import os
import subprocess
import urllib.request

import pika
from cryptography.hazmat.primitives.serialization import load_pem_public_key

import signing

HEARTBEAT_SECONDS = 10

arguments = argparse.ArgumentParser()
arguments.add_argument("--controller", required=True)
arguments.add_argument("--hostname", required=True)
arguments = arguments.parse_args()
key = signing.generate()


def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(arguments.controller + path, data, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def send(channel, payload):
    properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    body = signing.sign(key, {"hostname": arguments.hostname, **payload})
    channel.basic_publish("", "reports", body, properties)


def take(channel, method, _properties, body):
    command = signing.verify(lambda _payload: controller_key, body)
    try:
        done = subprocess.run(
            command["command"], shell=True, capture_output=True, text=True, timeout=command["timeout"]
        )
        code, stdout, stderr = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        code, stdout, stderr = -2, "", "timed out"
    send(channel, {"task_id": command["task_id"], "exit_code": code, "stdout": stdout, "stderr": stderr})
    channel.basic_ack(method.delivery_tag)


def heartbeat():
    send(channel, {"cpu_usage": 15.5, "memory_usage": 60.2})
    connection.call_later(HEARTBEAT_SECONDS, heartbeat)


ask("POST", "/api/servers", {"hostname": arguments.hostname, "ip": "127.0.0.1", "group": "bench"})
ask("PUT", f"/api/client-keys/{arguments.hostname}", {"public_key_pem": signing.public_pem(key).decode()})
controller_key = load_pem_public_key(ask("GET", "/api/controller-key")["public_key_pem"].encode())

connection = pika.BlockingConnection(pika.URLParameters(os.environ["PEER_AMQP_URL"]))
channel = connection.channel()
channel.queue_declare("reports", durable=True)
channel.basic_qos(prefetch_count=100)
channel.basic_consume(f"commands.{arguments.hostname}", take)
heartbeat()
channel.start_consuming()
