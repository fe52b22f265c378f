"""A system that says something to its controller over TLS: exchange.py SOURCE URL,sha256=HEX WHAT JSON

The TLS is Python's (OpenSSL), the key of the certificate is taken out by `openssl`. Prints the status and the body; `another key` where the key is not the
one that is expected, and then nothing was said.
"""

import http.client
import ssl
import subprocess
import sys
import urllib.parse

source, target, what, body = sys.argv[1:]
url, _, expected = target.partition(",sha256=")
at = urllib.parse.urlsplit(url)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.minimum_version = ssl.TLSVersion.TLSv1_3
connection = http.client.HTTPSConnection(at.hostname, at.port, timeout=20, context=context, source_address=(source, 0))
connection.connect()
certificate = connection.sock.getpeercert(binary_form=True)
key = subprocess.run("openssl x509 -inform der -noout -pubkey | openssl pkey -pubin -outform der | sha256sum", shell=True, input=certificate, capture_output=True, check=True)
if key.stdout.decode().split()[0] != expected:
    print("0\nanother key")
    sys.exit()
connection.request("POST", f"{at.path}/{what}", body, {"Content-Type": "application/json"})
answer = connection.getresponse()
print(answer.status)
print(answer.read().decode())
