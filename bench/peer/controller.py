"""A plain controller, as document 002 describes one: FastAPI, SQLAlchemy on MySQL, RSA-signed commands over RabbitMQ.

Commands and results are persistent messages in durable queues. One broker connection is shared by all requests, which
is faster than one for each. There is no outbox, no retry, no deduplication and no confirm: what a straightforward
implementation has, and nothing that slows it down.
"""

import os
import socket
import threading
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from functools import lru_cache
from typing import Literal
from uuid import uuid4

import pika
import uvicorn
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import DateTime, Float, Integer, String, Text, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

import signing

engine = create_engine(os.environ["PEER_DATABASE_URL"])
Session = sessionmaker(engine, expire_on_commit=False)
key = signing.generate()
listener = socket.create_server(("127.0.0.1", 0))


def now():
    return datetime.now(timezone.utc).replace(tzinfo=None)


# --- tables ---------------------------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Server(Base):
    __tablename__ = "servers"
    hostname: Mapped[str] = mapped_column(String(253), primary_key=True)
    ip: Mapped[str] = mapped_column(String(64))
    group: Mapped[str] = mapped_column(String(128), index=True)
    status: Mapped[str] = mapped_column(String(16), default="offline")
    last_heartbeat: Mapped[datetime | None] = mapped_column(DateTime)
    cpu_usage: Mapped[float | None] = mapped_column(Float)
    memory_usage: Mapped[float | None] = mapped_column(Float)


class Task(Base):
    __tablename__ = "tasks"
    task_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    target_type: Mapped[str] = mapped_column(String(16))
    target: Mapped[str | None] = mapped_column(String(253))
    command: Mapped[str] = mapped_column(Text)
    timeout: Mapped[int] = mapped_column(Integer)
    user: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(DateTime, default=now)


class TaskResult(Base):
    __tablename__ = "task_results"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    task_id: Mapped[str] = mapped_column(String(36), index=True)
    exit_code: Mapped[int] = mapped_column(Integer)
    stdout: Mapped[str] = mapped_column(Text)
    stderr: Mapped[str] = mapped_column(Text)
    timestamp: Mapped[datetime] = mapped_column(DateTime, default=now)


class ClientPublicKey(Base):
    __tablename__ = "client_public_keys"
    hostname: Mapped[str] = mapped_column(String(253), primary_key=True)
    public_key_pem: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime, default=now)
    updated_at: Mapped[datetime] = mapped_column(DateTime, default=now, onupdate=now)


# --- broker ---------------------------------------------------------------------------------------------------------


def connect():
    parameters = pika.URLParameters(os.environ["PEER_AMQP_URL"])
    parameters.heartbeat = 0
    return pika.BlockingConnection(parameters).channel()


class Publisher:
    """The one connection over which commands are sent."""

    def __init__(self):
        self.lock = threading.Lock()
        self.channel = connect()

    def send(self, hostname, body):
        properties = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        with self.lock:
            self.channel.basic_publish("", f"commands.{hostname}", body, properties)

    def declare(self, hostname):
        with self.lock:
            self.channel.queue_declare(f"commands.{hostname}", durable=True)


@lru_cache(maxsize=None)
def public_key(hostname):
    with Session() as session:
        return load_pem_public_key(session.get(ClientPublicKey, hostname).public_key_pem.encode())


def take(channel, method, _properties, body):
    """A result or a heartbeat."""
    payload = signing.verify(lambda payload: public_key(payload["hostname"]), body)
    with Session() as session:
        if "task_id" in payload:
            fields = ("task_id", "exit_code", "stdout", "stderr")
            session.add(TaskResult(**{field: payload[field] for field in fields}))
        else:
            server = session.get(Server, payload["hostname"])
            server.status, server.last_heartbeat = "online", now()
            server.cpu_usage, server.memory_usage = payload["cpu_usage"], payload["memory_usage"]
        session.commit()
    channel.basic_ack(method.delivery_tag)


def take_all():
    channel = connect()
    channel.queue_declare("reports", durable=True)
    channel.basic_qos(prefetch_count=100)
    channel.basic_consume("reports", take)
    channel.start_consuming()


# --- HTTP -----------------------------------------------------------------------------------------------------------


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ServerIn(BaseModel):
    hostname: str
    ip: str
    group: str


class ServerOut(View):
    hostname: str
    ip: str
    group: str
    status: str
    last_heartbeat: datetime | None
    cpu_usage: float | None
    memory_usage: float | None


class CommandIn(BaseModel):
    target_type: Literal["node", "group", "all"]
    target: str | None = None
    command: str
    timeout: int = 30
    user: str | None = None


class TaskOut(View):
    task_id: str
    target_type: str
    target: str | None
    command: str
    timeout: int
    user: str | None
    status: str
    created_at: datetime


class ResultOut(View):
    task_id: str
    exit_code: int
    stdout: str
    stderr: str
    timestamp: datetime


class KeyIn(BaseModel):
    public_key_pem: str


class KeyOut(View):
    hostname: str
    public_key_pem: str
    created_at: datetime
    updated_at: datetime


@asynccontextmanager
async def lifespan(_app):
    Base.metadata.create_all(engine)
    app.state.publisher = Publisher()
    threading.Thread(target=take_all, daemon=True).start()
    print(f"peer: ready on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/api/controller-key")
def controller_key():
    return {"public_key_pem": signing.public_pem(key).decode()}


@app.get("/api/servers", response_model=list[ServerOut])
def servers():
    with Session() as session:
        return session.scalars(select(Server)).all()


@app.post("/api/servers", response_model=ServerOut)
def add_server(body: ServerIn):
    with Session() as session:
        if session.get(Server, body.hostname):
            raise HTTPException(409, "主机名已存在")
        server = Server(**body.model_dump())
        session.add(server)
        session.commit()
    app.state.publisher.declare(body.hostname)
    return server


@app.put("/api/client-keys/{hostname}", response_model=KeyOut)
def put_key(hostname: str, body: KeyIn):
    with Session() as session:
        found = session.merge(ClientPublicKey(hostname=hostname, public_key_pem=body.public_key_pem))
        session.commit()
        return found


@app.post("/api/commands", response_model=TaskOut)
def post_command(body: CommandIn):
    if body.target_type != "all" and not body.target:
        raise HTTPException(400, "目标值缺失")
    with Session() as session:
        hosts = select(Server.hostname)
        if body.target_type == "node":
            hosts = hosts.where(Server.hostname == body.target)
        elif body.target_type == "group":
            hosts = hosts.where(Server.group == body.target)
        hostnames = session.scalars(hosts).all()
        task = Task(task_id=str(uuid4()), status="sent", created_at=now(), **body.model_dump())
        session.add(task)
        session.commit()
    payload = {"task_id": task.task_id, "command": body.command, "timeout": body.timeout, "user": body.user}
    for hostname in hostnames:
        app.state.publisher.send(hostname, signing.sign(key, {"hostname": hostname, **payload}))
    return task


@app.get("/api/tasks/{task_id}/results", response_model=list[ResultOut])
def results(task_id: str):
    with Session() as session:
        return session.scalars(select(TaskResult).where(TaskResult.task_id == task_id)).all()


if __name__ == "__main__":
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])
