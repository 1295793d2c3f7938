package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// proxyPorts are the services of the proxies, which end connections and carry no datagrams.
var proxyPorts = []uint16{webPort, bulkPort, echoPort}

// startHAProxy runs HAProxy in TCP mode with its usual number of threads, splicing where it thinks that pays.
func startHAProxy(ctx context.Context, _ *Wire, s *site) (*running, error) {
	var cfg strings.Builder
	cfg.WriteString("global\n\tmaxconn 4000\ndefaults\n\tmode tcp\n\toption splice-auto\n\ttimeout connect 5s\n\ttimeout client 30s\n\ttimeout server 30s\n")
	for _, port := range proxyPorts {
		fmt.Fprintf(&cfg, "listen port%d\n\tbind %v:%d\n\tserver rs1 %v:%d\n", port, s.vip, port, s.rip, port+natOffset)
	}
	return s.startProxy(ctx, "haproxy", cfg.String(), "-db", "-f")
}

// startNginx runs nginx's stream module with a worker for each CPU.
func startNginx(ctx context.Context, _ *Wire, s *site) (*running, error) {
	var cfg strings.Builder
	if _, err := os.Stat(streamModule); err == nil {
		cfg.WriteString("load_module " + streamModule + ";\n")
	}
	fmt.Fprintf(&cfg, "daemon off; worker_processes auto; pid %s/nginx.pid; error_log stderr;\nevents { worker_connections 8000; }\nstream {\n", s.dir)
	for _, port := range proxyPorts {
		fmt.Fprintf(&cfg, "\tserver { listen %v:%d; proxy_pass %v:%d; }\n", s.vip, port, s.rip, port+natOffset)
	}
	cfg.WriteString("}\n")
	return s.startProxy(ctx, "nginx", cfg.String(), "-c")
}

// streamModule is where Debian has it.
const streamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

// startProxy runs a program that terminates connections at the VIP.
func (s *site) startProxy(ctx context.Context, name, config string, args ...string) (*running, error) {
	if err := s.director.AddAddr("eth0", netip.PrefixFrom(s.vip, 32)); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, name+".conf")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return nil, err
	}
	c, log, err := s.launch(ctx, name, append(args, path)...)
	if err != nil {
		return nil, err
	}
	listening := func() error {
		conn, err := s.client.Dial("tcp", netip.AddrPortFrom(s.vip, echoPort).String())
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := upWithin(ctx, c, log, 10*time.Second, listening); err != nil {
		return nil, err
	}
	pids, err := family(c.Process.Pid)
	return &running{target: s.vip, pids: pids}, err
}
