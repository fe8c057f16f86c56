//! A model server for tests: answers its health check, leaves its process id in a file, ends on SIGTERM.

use std::path::Path;
use std::time::Duration;

use crate::local::ServerOptions;

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const PROGRAM: &str = r"
import http.server, os, sys
address, port, pid_file = sys.argv[1:]
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == '/health' else 404)
        self.end_headers()
    def log_message(self, *words):
        pass
server = http.server.HTTPServer((address, int(port)), Server)
with open(pid_file + '.tmp', 'w') as file:
    file.write(str(os.getpid()))
os.rename(pid_file + '.tmp', pid_file)
server.serve_forever()
";

/// Options that start it, with its files in `directory`.
pub(crate) fn options(directory: &Path) -> ServerOptions {
    let pid_file = format!("{}/{{name}}.pid", directory.display());
    let words = ["python3", "-c", PROGRAM, "{address}", "{port}", &pid_file];
    let mut options = ServerOptions::new(words.map(str::to_owned).to_vec(), ports());
    options.logs = Some(directory.to_owned());
    options
}

/// Process id of the server `name`, which has been healthy.
pub(crate) fn pid(directory: &Path, name: &str) -> i32 {
    std::fs::read_to_string(directory.join(format!("{name}.pid")))
        .unwrap()
        .parse()
        .unwrap()
}

/// Twenty ports in a row, elsewhere in every test; one that is taken is passed over by the actuator.
fn ports() -> std::ops::RangeInclusive<u16> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let first = free.min(u16::MAX - 20);
    first..=first + 19
}
