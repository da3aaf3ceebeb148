"""Signed messages, for controller and agent: a JSON payload and its RSA signature."""

import base64
import json

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

PADDING = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)


def generate():
    return rsa.generate_private_key(public_exponent=65537, key_size=3072)


def public_pem(key):
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form)


def sign(key, payload):
    """The payload and its signature, as the bytes that travel."""
    text = json.dumps(payload)
    signature = key.sign(text.encode(), PADDING, hashes.SHA256())
    return json.dumps({"payload": text, "signature": base64.b64encode(signature).decode()}).encode()


def verify(find_key, body):
    """The payload; raises when it was not signed with the key that is found for it."""
    message = json.loads(body)
    payload = json.loads(message["payload"])
    signature = base64.b64decode(message["signature"])
    find_key(payload).verify(signature, message["payload"].encode(), PADDING, hashes.SHA256())
    return payload
