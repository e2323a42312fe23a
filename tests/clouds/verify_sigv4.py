"""Says how botocore would have signed a request that arrived: JSON on standard input, `authorization` on standard output.

What is signed anew is what arrived: method, target, the headers that the signature names, and the body.
"""

import datetime
import json
import sys

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

seen = json.load(sys.stdin)
headers = {name.lower(): value for name, value in seen["headers"]}
then = datetime.datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
scope = headers["authorization"].split("Credential=")[1].split(",")[0].split("/")
named = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")


class Clock(datetime.datetime):
    @classmethod
    def utcnow(cls):
        return then


botocore.auth.datetime.datetime = Clock
if hasattr(botocore.auth, "get_current_datetime"):
    botocore.auth.get_current_datetime = lambda *_, **__: then

request = AWSRequest(
    method=seen["method"],
    url=f"http://{headers['host']}{seen['target']}",
    headers={name: headers[name] for name in named if name not in ("host", "x-amz-date", "x-amz-security-token")},
    data=seen["body"].encode(),
)
credentials = Credentials(seen["id"], seen["secret"], seen["token"])
botocore.auth.SigV4Auth(credentials, scope[3], scope[2]).add_auth(request)
print(request.headers["Authorization"])
