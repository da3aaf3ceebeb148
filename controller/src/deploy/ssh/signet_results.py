# Tells Signet what became of each host, one JSON object a line. Ansible loads it into its own process, so this one file
# is under Ansible's own licence:
# SPDX-FileCopyrightText: The Signet authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = """
name: signet_results
type: notification
short_description: writes the result of each host as a line of JSON
description:
  - Appends to the file that the environment variable SIGNET_JOB_RESULTS names.
"""

import io
import json
import os
import time

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "signet_results"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super(CallbackModule, self).__init__()
        self._file = io.open(os.environ["SIGNET_JOB_RESULTS"], "a", encoding="utf-8", errors="replace")
        self._started = {}

    def _write(self, event, host, **more):
        line = dict(more, event=event, host=host)
        self._file.write(u"%s\n" % json.dumps(line, ensure_ascii=False))
        self._file.flush()

    def _ended(self, event, result):
        task = getattr(result, "task", None) or result._task
        if event == "ok" and not task.action.endswith("git"):
            return
        host = (getattr(result, "host", None) or result._host).get_name()
        found = result.result if hasattr(result, "result") else result._result
        began = self._started.get(host, time.time())
        self._write(
            event,
            host,
            changed=bool(found.get("changed")),
            after=found.get("after"),
            msg="%s" % (found.get("msg") or ""),
            stderr="%s" % (found.get("stderr") or found.get("module_stderr") or ""),
            elapsed_ms=int((time.time() - began) * 1000),
        )

    def v2_runner_on_start(self, host, task):
        if host.get_name() not in self._started:
            self._started[host.get_name()] = time.time()
            self._write("start", host.get_name())

    def v2_runner_on_ok(self, result):
        self._ended("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._ended("failed", result)

    def v2_runner_on_unreachable(self, result):
        self._ended("unreachable", result)

    def v2_runner_on_skipped(self, result):
        self._ended("skipped", result)
