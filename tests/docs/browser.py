"""A folder of pages in headless Chromium: a driver page opens them one by one in a frame and reports what it saw."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-default-browser-check",
)  # fmt: skip

DRIVER = """<!doctype html><meta charset="utf-8"><iframe width="WIDTH" height="900"></iframe><script>
const frame=document.querySelector("iframe"),seen={};
const wait=ms=>new Promise(done=>setTimeout(done,ms));
const open=page=>new Promise(done=>{frame.onload=()=>done();frame.src=page});
(async()=>{
for(const page of PAGES){
 const faults=[];
 const early=setInterval(()=>{const w=frame.contentWindow;if(w&&!w.__watched&&w.location.pathname==page){w.__watched=true;
  w.addEventListener("error",e=>faults.push(e.message||(e.target&&(e.target.src||e.target.href))),true);
  w.console.error=(...words)=>faults.push(words.join(" "))}},1);
 await open(page);clearInterval(early);await wait(30);
 const d=frame.contentDocument,w=frame.contentWindow;
 let result=null;
 try{result=await(async()=>{SCRIPT})()}catch(error){faults.push(String(error))}
 seen[page]={faults,result};
}
await fetch("/report",{method:"POST",body:JSON.stringify(seen)});
})();</script>"""


def visit(folder: Path, pages: list[str], script: str, profile: Path, width: int = 1200) -> dict[str, Any]:
    """{page: {"faults": [errors of loading and running], "result": what `script` returned}}.

    script: the body of an async function; d is the page's document, w its window, wait(ms) waits.
    """
    assert BROWSER is not None
    driver = DRIVER.replace("PAGES", json.dumps(["/" + page for page in pages]))
    driver = driver.replace("WIDTH", str(width)).replace("SCRIPT", script)
    arrived = threading.Event()
    told: dict[str, Any] = {}

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/driver":
                return super().do_GET()
            body = driver.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None

        def do_POST(self) -> None:
            told.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/driver"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            assert arrived.wait(240), "the browser did not report"
        finally:
            browser.kill()
            server.shutdown()
            server.server_close()
    return {page.removeprefix("/"): seen for page, seen in told.items()}
