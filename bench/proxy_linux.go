package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// proxyPorts are the services of the proxies, which end connections and carry no datagrams.
var proxyPorts = []uint16{webPort, bulkPort, echoPort}

// startHAProxy runs HAProxy in TCP mode with its usual number of threads, splicing where it thinks that pays.
func startHAProxy(ctx context.Context, b *Wire, s *site) (*running, error) {
	var cfg strings.Builder
	socket, check, connect := filepath.Join(s.dir, "haproxy.sock"), "", "5s"
	if s.pair {
		connect = checkInterval.String()
	}
	fmt.Fprintf(&cfg, "global\n\tmaxconn %d\n\tstats socket %s level admin\ndefaults\n\tmode tcp\n\toption splice-auto\n\ttimeout connect %s\n\ttimeout client 30s\n\ttimeout server 30s\n",
		max(4000, b.room), socket, connect)
	if s.pair {
		check = fmt.Sprintf(" check inter %d fall 2 rise 1", checkInterval.Milliseconds())
		cfg.WriteString("\ttimeout check 500ms\n\tretries 1\n\toption redispatch\n")
	}
	for _, port := range proxyPorts {
		fmt.Fprintf(&cfg, "listen port%d\n\tbind %v:%d\n", port, s.vip, port)
		for i, rip := range s.rips {
			fmt.Fprintf(&cfg, "\tserver rs%d %v:%d", i+1, rip, port+natOffset)
			if port == webPort {
				cfg.WriteString(check)
			}
			cfg.WriteString("\n")
		}
	}
	r, err := s.startProxy(ctx, "haproxy", cfg.String(), "-db", "-f")
	if err != nil {
		return nil, err
	}
	r.remove = func(_ context.Context, rip netip.Addr) error {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = fmt.Fprintf(c, "disable server port%d/rs%d\n", webPort, slices.Index(s.rips, rip)+1)
		said, readErr := io.ReadAll(c)
		if text := strings.TrimSpace(string(said)); text != "" {
			readErr = errors.Join(readErr, errors.New(text))
		}
		return errors.Join(err, readErr)
	}
	return r, nil
}

// startNginx runs nginx's stream module with a worker for each CPU. It asks no servers; it passes over one that didn't take a
// connection.
func startNginx(ctx context.Context, b *Wire, s *site) (*running, error) {
	r, err := s.startProxy(ctx, "nginx", s.nginxConfig(b, s.rips), "-c")
	if err != nil {
		return nil, err
	}
	r.remove = func(_ context.Context, rip netip.Addr) error {
		if err := os.WriteFile(filepath.Join(s.dir, "nginx.conf"), []byte(s.nginxConfig(b, s.without(rip))), 0o644); err != nil {
			return err
		}
		return unix.Kill(r.pids[0], unix.SIGHUP)
	}
	return r, nil
}

func (s *site) nginxConfig(b *Wire, rips []netip.Addr) string {
	var cfg strings.Builder
	if _, err := os.Stat(streamModule); err == nil {
		cfg.WriteString("load_module " + streamModule + ";\n")
	}
	fmt.Fprintf(&cfg, "daemon off; worker_processes auto; pid %s/nginx.pid; error_log stderr;\nevents { worker_connections %d; }\nstream {\n",
		s.dir, max(8000, 2*b.room))
	if s.pair {
		fmt.Fprintf(&cfg, "\tproxy_connect_timeout %dms;\n", checkInterval.Milliseconds())
	}
	for _, port := range proxyPorts {
		fmt.Fprintf(&cfg, "\tupstream port%d {\n", port)
		for _, rip := range rips {
			fmt.Fprintf(&cfg, "\t\tserver %v:%d max_fails=1 fail_timeout=10s;\n", rip, port+natOffset)
		}
		fmt.Fprintf(&cfg, "\t}\n\tserver { listen %v:%d; proxy_pass port%d; }\n", s.vip, port, port)
	}
	cfg.WriteString("}\n")
	return cfg.String()
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
	r := &running{target: s.vip}
	start := func(ctx context.Context) error {
		c, log, err := s.launch(ctx, name, append(args, path)...)
		if err != nil {
			return err
		}
		listening := func() error {
			conn, err := s.client.Dial("tcp", netip.AddrPortFrom(s.vip, echoPort).String())
			if err == nil {
				conn.Close()
			}
			return err
		}
		if err := upWithin(ctx, c, log, 10*time.Second, listening); err != nil {
			return err
		}
		r.pids, err = family(c.Process.Pid)
		return err
	}
	if err := start(ctx); err != nil {
		return nil, err
	}
	r.restart = func(ctx context.Context) error { return errors.Join(kill(r.pids), start(ctx)) }
	return r, nil
}
