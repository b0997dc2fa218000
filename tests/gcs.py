"""Google Cloud Storage on localhost and in memory, as far as gcsfs and TensorStore need it.

As there, an object is put whole or not at all, nothing is appended, what was put is listed at once,
and preconditions on an object's generation hold. Paths and fields are those of the JSON API,
https://cloud.google.com/storage/docs/json_api/v1.
"""

import functools
import http.server
import itertools
import json
import os
import re
import sys
import threading
import urllib.parse

import pytest

# gcsfs would ask by gRPC what kind of bucket it is.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
pytest.importorskip("gcsfs", reason="needs the extra gcs")

_PAGE = 100  # entries of a listing; small, so that pages are turned
_numbers = itertools.count(1)
_lock = threading.RLock()
_buckets: dict[str, dict[str, tuple[int, bytes]]] = {}  # name -> object -> (generation, content)
_uploads: dict[str, tuple[str, str, bytearray]] = {}  # in pieces: id -> (bucket, object, so far)


def bucket() -> str:
  """Makes an empty bucket, for as long as the process lives, and returns its name."""
  _serve()
  name = f"bucket-{next(_numbers)}"
  _buckets[name] = {}
  return name


def objects(bucket: str) -> dict[str, bytes]:
  """Name -> content of all objects of a bucket."""
  with _lock:
    return {name: content for name, (_, content) in sorted(_buckets[bucket].items())}


def put(bucket: str, name: str, content: bytes) -> None:
  """Puts an object into a bucket."""
  with _lock:
    _buckets[bucket][name] = (next(_numbers), content)


def generations(bucket: str) -> dict[str, int]:
  """Name -> number that changes when an object is put again."""
  with _lock:
    return {name: generation for name, (generation, _) in _buckets[bucket].items()}


@functools.cache
def _serve() -> None:
  """Starts the server and points the clients of this process to it."""
  server = _Server(("127.0.0.1", 0), _Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  url = f"http://127.0.0.1:{server.server_port}"
  os.environ |= {
    "STORAGE_EMULATOR_HOST": url,
    "TENSORSTORE_GCS_HTTP_URL": url,
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
    "NO_GCE_CHECK": "true",  # else credentials are looked for in the network
  }


class _Server(http.server.ThreadingHTTPServer):
  def handle_error(self, request, client_address):
    if not isinstance(sys.exc_info()[1], ConnectionError):  # gcsfs hangs up on superfluous answers
      super().handle_error(request, client_address)


class _Refused(Exception):
  """An answer with this status."""


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  wbufsize, disable_nagle_algorithm = -1, True  # an answer is one packet

  def log_message(self, *_):
    pass

  def _handle(self):
    self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
    try:
      with _lock:
        status, headers, content = self._answer(self.command, self.path)
    except _Refused as e:
      status, headers, content = e.args[0], {}, b""
    self.send_response(status)
    for name, value in {"Content-Length": len(content), **headers}.items():
      self.send_header(name, str(value))
    self.end_headers()
    self.wfile.write(content)

  do_GET = do_POST = do_PUT = do_DELETE = _handle

  def _answer(self, method, address):
    """(status, headers, content) of a request."""
    parts = urllib.parse.urlsplit(address)
    query = dict(urllib.parse.parse_qsl(parts.query))
    path = re.sub(r"^/download", "", parts.path)
    if path.startswith("/resumable/"):
      return self._piece(path.rsplit("/", 1)[1])
    found = re.fullmatch(r"(/upload)?/storage/v1/b/([^/]+)(/o(/[^/]+)?)?(/\w+/.*)?", path)
    if not found or found[2] not in _buckets:
      raise _Refused(404)
    upload, bucket, listed, name, more = found.groups()
    name = urllib.parse.unquote(name or "")[1:]
    if upload:
      return self._upload(bucket, query)
    if not listed:
      return _json({"name": bucket, "kind": "storage#bucket"})
    if not name:
      return _json(_listing(_buckets[bucket], bucket, query))
    if name not in _buckets[bucket]:
      raise _Refused(404)
    if more:  # …/rewriteTo/b/BUCKET/o/OBJECT or …/moveTo/o/OBJECT
      _, verb, *_, target = more.split("/")
      content = _buckets[bucket][name][1]
      if verb == "moveTo":
        del _buckets[bucket][name]
      resource = _put(bucket, urllib.parse.unquote(target), content, {})
      return _json({"done": True, "resource": resource} if verb == "rewriteTo" else resource)
    _check_generation(bucket, name, query)
    if method == "DELETE":
      del _buckets[bucket][name]
      return 204, {}, b""
    return (
      self._content(bucket, name) if query.get("alt") == "media" else _json(_meta(bucket, name))
    )

  def _content(self, bucket, name):
    generation, content = _buckets[bucket][name]
    headers, size = {"x-goog-generation": generation}, len(content)
    wanted = self.headers.get("Range")
    if not wanted:
      return 200, headers, content
    first, last = wanted.removeprefix("bytes=").split("-")
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= size:
      raise _Refused(416)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return 206, headers, content[start:end]

  def _upload(self, bucket, query):
    """A new object in one request, or the beginning of one that comes in pieces."""
    kind, name, content = query["uploadType"], query.get("name"), self.body
    if kind == "resumable":
      _uploads[number := str(next(_numbers))] = (bucket, name, bytearray())
      host = os.environ["STORAGE_EMULATOR_HOST"]
      return 200, {"Location": f"{host}/resumable/{number}"}, b""
    if kind == "multipart":
      boundary = re.search(r'boundary="?([^"]+)', self.headers["Content-Type"])[1].encode()
      _, meta, content, _ = self.body.split(b"--" + boundary)
      meta, content = (re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in (meta, content))
      name = json.loads(meta)["name"]
      content = re.sub(rb"\r?\n\Z", b"", content)
    return _json(_put(bucket, name, content, query))

  def _piece(self, number):
    """The next piece of an object; it exists when the last one has come."""
    bucket, name, content = _uploads[number]
    if self.command == "DELETE":
      del _uploads[number]
      return 499, {}, b""
    content += self.body
    if self.headers["Content-Range"].endswith(f"/{len(content)}"):
      del _uploads[number]
      return _json(_put(bucket, name, bytes(content), {}))
    return 308, {"Range": f"bytes=0-{len(content) - 1}"}, b""


def _json(value):
  return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _meta(bucket, name):
  generation, content = _buckets[bucket][name]
  return {
    "kind": "storage#object", "bucket": bucket, "name": name, "size": str(len(content)),
    "generation": str(generation), "metageneration": "1", "updated": "2024-01-01T00:00:00.000Z",
  }  # fmt: skip


def _put(bucket, name, content, query):
  _check_generation(bucket, name, query)
  _buckets[bucket][name] = (next(_numbers), content)
  return _meta(bucket, name)


def _check_generation(bucket, name, query):
  """Refuses when the object is not (`Match`), or is (`NotMatch`), of the generation in the query."""
  generation = str(_buckets[bucket].get(name, (0,))[0])
  if query.get("ifGenerationMatch", generation) != generation:
    raise _Refused(412)
  if query.get("ifGenerationNotMatch") == generation:
    raise _Refused(304)


def _listing(stored, bucket, query):
  """A page of the objects with a prefix; with a delimiter what lies deeper is one "prefix"."""
  prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
  entries = {}
  for name in sorted(stored):
    if not name.startswith(prefix) or name < query.get("startOffset", ""):
      continue
    head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
    entry = prefix + head + delimiter if found else name
    entries[entry] = bool(found)
  entries = [(e, deeper) for e, deeper in entries.items() if e > query.get("pageToken", "")]
  page = entries[: min(_PAGE, int(query.get("maxResults", _PAGE)))]
  answer = {
    "kind": "storage#objects",
    "items": [_meta(bucket, name) for name, deeper in page if not deeper],
    "prefixes": [name for name, deeper in page if deeper],
  }
  return answer | ({"nextPageToken": page[-1][0]} if len(page) < len(entries) else {})
