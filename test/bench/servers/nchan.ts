// nginx with nchan, behind the interface of the other servers. This process reads its usage, and nginx passes that through.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { NCHAN_MODULE, NGINX } from "../nchan.ts";
import { freePort, serveUsage } from "../process-usage.ts";
import { announcePort } from "../usage.ts";

const directory = mkdtempSync(join(tmpdir(), "fanwire-bench-"));
let worker = 0;
const usagePort = await serveUsage(() => worker);
const port = await freePort();
const config = join(directory, "nginx.conf");
writeFileSync(
  config,
  `load_module ${NCHAN_MODULE};
daemon off;
${process.getuid?.() === 0 ? "user root;" : ""}
worker_processes 1;
pid ${directory}/pid;
error_log stderr error;
events { worker_connections 32768; }
http {
  access_log off;
  client_body_temp_path ${directory}/body;
  proxy_temp_path ${directory}/proxy;
  fastcgi_temp_path ${directory}/fastcgi;
  uwsgi_temp_path ${directory}/uwsgi;
  scgi_temp_path ${directory}/scgi;
  # A longer body would become a file, and be sent from there.
  client_body_buffer_size 128k;
  keepalive_requests 1000000000;
  # 1,000 channels with full buffers do not fit into the default of 128M.
  nchan_shared_memory_size 1G;
  nchan_store_messages on;
  nchan_message_buffer_length 2000;
  nchan_message_timeout 5m;
  # The query of fanwire: up to three channels, and one more channel for events to one client.
  map $args $channels {
    default all;
    "~(?:^|&)channel=([^&]+)&channel=([^&]+)&channel=([^&]+)" $1,$2,$3;
    "~(?:^|&)channel=([^&]+)&channel=([^&]+)" $1,$2;
    "~(?:^|&)channel=([^&]+)" $1;
  }
  map $arg_id $subscribed { "" $channels; default $channels,inbox-$arg_id; }
  map $arg_id $published { "" $channels; default inbox-$arg_id; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location = /connect {
      nchan_subscriber eventsource;
      nchan_subscriber_first_message newest;
      nchan_channel_id $subscribed;
      nchan_channel_id_split_delimiter ",";
      nchan_eventsource_ping_interval 8;
      # A comment instead of an event, like fanwire's heartbeat.
      nchan_eventsource_ping_event "";
    }
    location = /broadcast {
      nchan_publisher;
      nchan_channel_id $published;
    }
    location = /cpu { proxy_pass http://127.0.0.1:${usagePort}; }
  }
}
`,
);

const nginx = spawn(NGINX, ["-e", "stderr", "-p", directory, "-c", config], {
  stdio: ["ignore", "inherit", "inherit"],
});
nginx.on("exit", (status) => {
  rmSync(directory, { recursive: true, force: true });
  process.exit(status ?? 0);
});
process.on("SIGTERM", () => nginx.kill());
worker = await pidOfWorker();
announcePort(port, () => nginx.kill());

async function pidOfWorker(): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const children = readFileSync(`/proc/${nginx.pid}/task/${nginx.pid}/children`, "utf8").trim();
    if (children) return Number(children.split(" ")[0]);
    await sleep(10);
  }
  throw new Error("starting nginx: it had no worker within 2 s");
}
