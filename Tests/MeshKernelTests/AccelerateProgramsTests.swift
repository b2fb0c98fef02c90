import Foundation
import MeshModel
import Testing

@testable import MeshKernel

/// Tier T2 under programs that were not written for it.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct AccelerateProgramsTests {
    let mesh: AccelerateLab

    init() throws { mesh = try AccelerateLab() }

    /// Runs a server in the called namespace until `body` is over; `body` begins when its port answers.
    private func serving(_ command: [String], port: UInt16, _ body: () throws -> Void) throws {
        let script = """
            import signal, socket, subprocess, sys, time
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            server = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            signal.signal(signal.SIGTERM, lambda *_: server.terminate())
            while server.poll() is None:
                try:
                    socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close()
                    break
                except OSError: time.sleep(0.01)
            print('ready', flush=True)
            server.wait()
            """
        let server = try Background(mesh.lab.inside(mesh.lab.out) + ["python3", "-c", script, "\(port)"] + command)
        defer { _ = server.end() }
        try body()
    }

    private func client(_ command: [String]) throws -> String {
        let outcome = try run(mesh.lab.inside(mesh.lab.pod) + command)
        #expect(outcome.status == 0, "\(outcome.errors)")
        return outcome.output
    }

    @Test func redis() throws {
        let command = ["redis-server", "--port", "6379", "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no"]
        try serving(command, port: 6379) {
            let output = try client([
                "redis-benchmark", "-h", "10.77.0.1", "-p", "6379", "-n", "5000", "-c", "20", "-q", "-t",
                "set,get,lrange",
            ])
            #expect(output.contains("GET:") && output.contains("LRANGE_100"))
            let big = String(repeating: "v", count: 100_000)
            #expect(try client(["redis-cli", "-h", "10.77.0.1", "set", "k", big]).contains("OK"))
            #expect(try client(["redis-cli", "-h", "10.77.0.1", "get", "k"]).contains(big))
        }
        #expect(try mesh.count(.accelerated) > 20)
        #expect(try mesh.records(20).reduce(0) { $0 + $1.bytesAccelerated } > 100_000)
    }

    /// nginx sizes its reads by FIONREAD. Files are bulk, which goes by TCP whenever its reader falls behind.
    @Test func nginx() throws {
        let directory = "\(mesh.lab.options.runtimeDirectory)/nginx"
        try FileManager.default.createDirectory(atPath: "\(directory)/up", withIntermediateDirectories: true)
        try """
        daemon off; user root; worker_processes 1; pid \(directory)/pid; error_log \(directory)/error;
        events {}
        http { access_log off; client_body_temp_path \(directory)/body; client_max_body_size 100m;
          server { listen 8080; root \(directory);
            location /up/ { dav_methods PUT; } } }
        """.write(toFile: "\(directory)/conf", atomically: true, encoding: .utf8)
        func digest(_ name: String) throws -> Substring {
            try #require(try shell("sha256sum \(directory)/\(name)").split(separator: " ").first)
        }
        try serving(["nginx", "-c", "\(directory)/conf"], port: 8080) {
            let url = "http://10.77.0.1:8080"
            for size in [1, 100_000, 64 << 20] {
                try shell("dd if=/dev/urandom of=\(directory)/file bs=\(size) count=1 iflag=fullblock status=none")
                for _ in 0..<3 {
                    _ = try client(["curl", "-sSf", "-m", "60", "-o", "\(directory)/got", "\(url)/file"])
                    #expect(try digest("got") == digest("file"))
                    _ = try client(["curl", "-sSf", "-m", "60", "-T", "\(directory)/file", "\(url)/up/put"])
                    #expect(try digest("up/put") == digest("file"))
                }
            }
        }
        #expect(try mesh.count(.accelerated) == 18)
        // A reader has to be 1 MiB behind before a direction goes by TCP: of six large files that much skips it.
        #expect(try mesh.records(18).reduce(0) { $0 + $1.bytesAccelerated } > 6 << 20)
    }

    @Test func asyncio() throws {
        let program = """
            import asyncio
            listener.setblocking(False)
            async def answer(reader, writer):
                while line := await reader.readline():
                    writer.write(line.upper())
                    await writer.drain()
                writer.close()
            async def ask(number):
                reader, writer = await asyncio.open_connection('10.77.0.1', port)
                for turn in range(50):
                    text = ('%d %d ' % (number, turn)).encode() + b'x' * random.randrange(3000) + b'\\n'
                    writer.write(text)
                    assert await asyncio.wait_for(reader.readline(), 20) == text.upper()
                writer.write_eof()
                assert await asyncio.wait_for(reader.read(), 20) == b''
                writer.close()
            async def main():
                await asyncio.start_server(answer, sock=listener)
                await asyncio.gather(*[ask(number) for number in range(30)])
            asyncio.run(main())
            """
        #expect(try mesh.run(program) == [])
        #expect(try mesh.count(.accelerated) == 30)
    }
}
