package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"uvs/lab"
)

// streamPort is that of the streaming service and of its servers, whatever the method.
const streamPort = 81

// streamServer says its name and a newline on each connection, then sends on and on if the client asks for it with "more",
// until something breaks.
type streamServer struct {
	name  string
	ended chan error // one for each connection that broke
}

// serveStreams starts a streaming server on every real server and a service for them.
func (r *rig) serveStreams() []*streamServer {
	r.t.Helper()
	service := netip.AddrPortFrom(r.VIP(), streamPort).String()
	rules := []string{"-A -t " + service + " -s rr"}
	var servers []*streamServer
	for _, rs := range r.RealServers {
		addr := r.VIP()
		if !r.direct {
			addr = rs.Addr()
		}
		ln, err := rs.Namespace.Listen("tcp", netip.AddrPortFrom(addr, streamPort).String())
		must(r.t, err)
		s := &streamServer{rs.Name(), make(chan error, 100)}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				serving.Go(func() { s.ended <- s.serve(conn) })
			}
		})
		r.t.Cleanup(func() { ln.Close() })
		servers = append(servers, s)
		rules = append(rules, fmt.Sprintf("-a -t %s -r %v:%d %s -w 1", service, rs.Addr(), streamPort, r.method()))
	}
	r.restore(rules...)
	return servers
}

func (s *streamServer) serve(conn net.Conn) error {
	defer conn.Close()
	fmt.Fprintln(conn, s.name)
	ask := make([]byte, 5)
	if _, err := io.ReadFull(conn, ask); err != nil {
		return err
	}
	for chunk := make([]byte, 16<<10); ; time.Sleep(5 * time.Millisecond) {
		if _, err := conn.Write(chunk); err != nil {
			return err
		}
	}
}

// stream is a client's connection to a streaming server.
type stream struct {
	server string
	conn   net.Conn
	got    atomic.Int64
	ended  chan error
}

// stream opens a connection, and downloads by it unless it is to be idle.
func (r *rig) stream(idle bool) *stream {
	r.t.Helper()
	conn, err := r.Clients[0].Dial("tcp", netip.AddrPortFrom(r.VIP(), streamPort).String())
	must(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	s := &stream{conn: conn, ended: make(chan error, 1)}
	name := make([]byte, len("rs1\n"))
	_, err = io.ReadFull(conn, name)
	must(r.t, err)
	s.server = strings.TrimSpace(string(name))
	if !idle {
		s.more()
	}
	return s
}

func (s *stream) more() {
	fmt.Fprintln(s.conn, "more")
	go func() {
		for buf := make([]byte, 64<<10); ; {
			n, err := s.conn.Read(buf)
			s.got.Add(int64(n))
			if err != nil {
				s.ended <- err
				return
			}
		}
	}()
}

// lasted waits for the end of something, which must be a reset.
func wantReset(t *testing.T, what string, ended chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s ended with %v, want a reset", what, err)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("%s goes on", what)
	}
}

// background is a uvsadm that takes its time.
type background struct {
	*exec.Cmd
	out bytes.Buffer
}

func (r *rig) inBackground(args ...string) *background {
	r.t.Helper()
	b := &background{Cmd: exec.Command(program("uvsadm"), append([]string{"--socket", r.socket}, args...)...)}
	b.Stdout, b.Stderr = &b.out, &b.out
	must(r.t, b.Start())
	r.t.Cleanup(func() { b.Process.Kill(); b.Wait() })
	return b
}

// A real server is drained: nothing new goes there and nothing breaks until the deadline; then both ends of what is left see a
// reset, UDP goes elsewhere, and the server is empty.
func TestDrain(t *testing.T) {
	methods(t, func(t *testing.T, cfg rigConfig) {
		r := newRig(t, cfg)
		servers := r.serveStreams()
		streams := []*stream{r.stream(false), r.stream(false), r.stream(false), r.stream(false)}
		idle := []*stream{r.stream(true), r.stream(true)}
		if idle[0].server != "rs1" {
			idle[0], idle[1] = idle[1], idle[0]
		}
		udp := r.udpTo("rs1")
		drained := r.RealServers[0].Addr()

		const deadline = 4 * time.Second
		begin := time.Now()
		drain := r.inBackground("drain", drained.String(), "--by", deadline.String())
		eventually(t, "rs1 is quiesced", func() (bool, any) {
			l := r.list("-t", r.webService())
			return l[r.webServer(1)].weight == "0", l
		})
		before := map[*stream]int64{}
		for _, s := range streams {
			before[s] = s.got.Load()
		}
		if got := r.count(6); got["rs2"] != 6 {
			t.Errorf("while rs1 is drained 6 requests went to %v", got)
		}
		for range 4 {
			if s := r.stream(true); s.server != "rs2" {
				t.Errorf("while rs1 is drained a new connection went to %s", s.server)
			}
		}
		if server, _, err := lab.EchoUDP(shortly(t), udp, []byte("still")); err != nil || server != "rs1" && time.Since(begin) < deadline {
			t.Errorf("before the deadline the UDP flow went to %q, %v", server, err)
		}
		for _, s := range streams {
			eventually(t, "downloads go on", func() (bool, any) { return s.got.Load() > before[s], s.got.Load() })
		}
		select {
		case err := <-servers[0].ended:
			if time.Since(begin) < deadline-time.Second {
				t.Errorf("a connection of rs1 broke before the deadline: %v", err)
			}
			servers[0].ended <- err
		default:
		}

		if err := drain.Wait(); err != nil || !strings.Contains(drain.out.String(), "is empty after") {
			t.Errorf("uvsadm drain: %v: %s", err, &drain.out)
		}
		if took := time.Since(begin); took < deadline-time.Second {
			t.Errorf("it ended after %v, before the deadline", took)
		}
		resets := 0
		for i, s := range streams {
			if s.server == "rs1" {
				wantReset(t, fmt.Sprintf("download %d from rs1", i), s.ended)
				resets++
			}
		}
		for range resets {
			wantReset(t, "rs1's end of a download", servers[0].ended)
		}
		if resets != 2 {
			t.Errorf("%d downloads came from rs1, want 2", resets)
		}
		idle[0].more() // what nobody spoke on since is reset now
		wantReset(t, "the idle connection to rs1", idle[0].ended)
		wantReset(t, "rs1's end of the idle connection", servers[0].ended)
		if l := r.list("-t", netip.AddrPortFrom(r.VIP(), streamPort).String()); l[fmt.Sprintf("%v:%d", drained, streamPort)].active != "0" ||
			l[fmt.Sprintf("%v:%d", drained, streamPort)].inactive != "0" {
			t.Errorf("after the deadline rs1 has connections: %v", l)
		}
		if server, _, err := lab.EchoUDP(shortly(t), udp, []byte("moved")); err != nil || server != "rs2" {
			t.Errorf("after the deadline the UDP flow went to %q, %v", server, err)
		}
		for _, s := range streams {
			if s.server == "rs2" {
				was := s.got.Load()
				eventually(t, "rs2's downloads go on", func() (bool, any) { return s.got.Load() > was, s.got.Load() })
			}
		}
		if out := r.adm("undrain", drained.String()); strings.Count(out, "has weight 1 again") != 3 {
			t.Errorf("undrain: %s", out)
		}
		if got := r.count(6); got["rs1"] != 3 {
			t.Errorf("after undrain 6 requests went to %v", got)
		}
	})
}

// udpTo is a UDP flow that goes to a server.
func (r *rig) udpTo(server string) net.Conn {
	r.t.Helper()
	for range 4 {
		conn, err := r.Clients[0].Dial("udp", r.udpService())
		must(r.t, err)
		r.t.Cleanup(func() { conn.Close() })
		if got, _, err := lab.EchoUDP(shortly(r.t), conn, []byte("who")); err == nil && got == server {
			return conn
		}
	}
	r.t.Fatalf("no flow goes to %s", server)
	return nil
}

// Interrupted, uvsadm drain leaves the server quiesced, cuts nothing, and says so.
func TestInterruptedDrainLeavesTheServerQuiesced(t *testing.T) {
	r := newRig(t, rigConfig{})
	r.serveStreams()
	a, b := r.stream(true), r.stream(true)
	server := a.server
	number := int(server[2] - '0')
	address := r.RealServers[number-1].Addr().String()
	drain := r.inBackground("drain", address, "--by", "1h")
	eventually(t, "the drain is listed", func() (bool, any) {
		out := r.adm("drain")
		return strings.Contains(out, "draining"), out
	})
	must(t, drain.Process.Signal(syscall.SIGINT))
	err := drain.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 130 || !strings.Contains(drain.out.String(), "stays quiesced") {
		t.Errorf("interrupted: %v: %s", err, &drain.out)
	}
	if w := r.list("-t", r.webService())[r.webServer(number)].weight; w != "0" {
		t.Errorf("its weight is %s", w)
	}
	if out := r.adm("drain"); !strings.Contains(out, "never") || strings.Contains(out, "1h") {
		t.Errorf("the deadline still stands:\n%s", out)
	}
	a.more()
	b.more()
	for _, s := range []*stream{a, b} {
		eventually(t, "downloads go on", func() (bool, any) { return s.got.Load() > 0, s.got.Load() })
	}
	if _, err := r.tryAdm("", "drain", "192.0.2.250"); err == nil || !strings.Contains(err.Error(), "no such destination") {
		t.Errorf("drain of nobody: %v", err)
	}
	r.adm("undrain", address)
	if _, err := r.tryAdm("", "undrain", address); err == nil || !strings.Contains(err.Error(), "not being drained") {
		t.Errorf("undrain twice: %v", err)
	}
}

// On a terminal the line is rewritten in place, once a second, and never wraps.
func TestDrainOnATerminal(t *testing.T) {
	r := newRig(t, rigConfig{})
	r.serveStreams()
	s := r.stream(true)
	address := r.RealServers[int(s.server[2]-'0')-1].Addr().String()
	out, err := exec.Command("script", "-qec", fmt.Sprintf("%s --socket %s drain %s --by 2s", program("uvsadm"), r.socket, address), "/dev/null").CombinedOutput()
	must(t, err)
	text := string(out)
	if !strings.HasPrefix(text, address+" takes no new connections\r\n\r\x1b[?7l1 connection left") || strings.Count(text, "\x1b[?7l") < 2 ||
		strings.Count(text, "\x1b[?7l") != strings.Count(text, "\x1b[?7h") || strings.Count(text, "\n") != 2 || !strings.Contains(text, "is empty after") {
		t.Errorf("on a terminal: %q", text)
	}
}
