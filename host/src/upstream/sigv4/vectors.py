"""Signs requests with botocore and writes them down: `python3 vectors.py > vectors.json`, with botocore from PyPI.

What botocore signs is what AWS takes. The gateway's signatures are compared with these in `tests.rs`.
"""

import datetime
import json
import sys

import botocore
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

# The keys of AWS's own documents, which open nothing.
KEYS = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
TOKEN = "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJHMEUCIQ=="
NOW = datetime.datetime(2026, 11, 27, 20, 15, 7, tzinfo=datetime.timezone.utc)
HOST = "https://bedrock-runtime.eu-central-1.amazonaws.com"
ARN = "arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Ainference-profile%2Feu.anthropic.claude-opus-4-5-20251101-v1%3A0"
JSON = {"content-type": "application/json"}
CASES = [
    ("a model's id, as botocore writes it", "POST", f"{HOST}/model/anthropic.claude-opus-4-5-20251101-v1%3A0/invoke", JSON, '{"a":1}', None),
    ("a model's id with its colon", "POST", f"{HOST}/model/anthropic.claude-opus-4-5-20251101-v1:0/invoke", JSON, '{"a":1}', None),
    ("an ARN, whose slash is encoded", "POST", f"{HOST}/model/{ARN}/invoke-with-response-stream", JSON, '{"a":1}', None),
    ("a session's token", "POST", f"{HOST}/model/m/invoke", JSON, "{}", TOKEN),
    ("headers of Amazon's own, with spaces", "POST", f"{HOST}/model/m/invoke", {**JSON, "x-amzn-bedrock-guardrailidentifier": "  a   b ", "x-amzn-bedrock-trace": "ENABLED"}, "{}", None),
    ("no body and no type of it", "GET", f"{HOST}/model-customization-jobs", {}, "", None),
    ("parameters out of order", "GET", f"{HOST}/jobs?nextToken=a%2Fb%3D&maxResults=7&maxResults=10&empty=&b", {}, "", None),
    ("a port of its own", "POST", "http://127.0.0.1:8123/model/m/converse", JSON, "{}", TOKEN),
    ("an empty path", "GET", HOST, {}, "", None),
]


class Clock(datetime.datetime):
    """botocore asks the machine for the time."""

    @classmethod
    def utcnow(cls):
        return NOW.replace(tzinfo=None)

    @classmethod
    def now(cls, tz=None):
        return NOW


def signed(method, url, headers, body, token):
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body.encode())
    signer = botocore.auth.SigV4Auth(Credentials(*KEYS, token), "bedrock", "eu-central-1")
    signer.add_auth(request)
    return request.headers["Authorization"]


def main():
    botocore.auth.datetime.datetime = Clock
    if hasattr(botocore.auth, "get_current_datetime"):
        botocore.auth.get_current_datetime = lambda *_, **__: NOW.replace(tzinfo=None)
    cases = [
        {"what": what, "method": method, "url": url, "headers": headers, "body": body, "token": token,
         "authorization": signed(method, url, headers, body, token)}
        for what, method, url, headers, body, token in CASES
    ]
    made = {"made_by": f"botocore {botocore.__version__}", "now": NOW.strftime("%Y%m%dT%H%M%SZ"), "cases": cases}
    json.dump(made, sys.stdout, indent=1)
    print()


main()
