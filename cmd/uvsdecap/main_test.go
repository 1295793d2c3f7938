package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uvs/lab"
)

// roleVariable makes the test binary be uvsdecap.
const roleVariable = "UVSDECAP_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		main()
		os.Exit(0)
	}
	if err := lab.Reexec(false); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// program is a running uvsdecap and what it logged so far.
type program struct {
	*lab.Cmd
	mu  sync.Mutex // guards log
	log bytes.Buffer
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *program) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// await waits until the log has the given number of lines with a message, and returns the last one's fields.
func (p *program) await(t *testing.T, message string, times int) map[string]any {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		var found []map[string]any
		for line := range strings.Lines(p.logged()) {
			fields := make(map[string]any)
			if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == message {
				found = append(found, fields)
			}
		}
		if len(found) >= times {
			return found[len(found)-1]
		}
		if time.Now().After(end) {
			t.Fatalf("%q was not logged %d times:\n%s", message, times, p.logged())
		}
	}
}

// start runs uvsdecap in a namespace until it says that it is ready.
func start(t *testing.T, ns *lab.Namespace, args ...string) *program {
	t.Helper()
	p := &program{Cmd: ns.Command(context.Background(), os.Args[0], args...)}
	p.Env = append(os.Environ(), roleVariable+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	p.Stdout, p.Stderr = p, p
	must(t, p.Start())
	p.await(t, "decapsulating", 1)
	return p
}

// network is a client, a director and a real server whose VIP uvsdecap is to hold.
func network(t *testing.T) (client, director, rs *lab.Host, vip netip.Addr) {
	t.Helper()
	topo := lab.DR(t, lab.Config{RealServers: 1})
	rs, vip = topo.RealServers[0], topo.VIP()
	must(t, rs.RemoveAddr("lo", netip.PrefixFrom(vip, 32)))
	must(t, rs.Sysctl("net/ipv4/conf/all/arp_ignore", "0"))
	must(t, rs.Sysctl("net/ipv4/conf/all/arp_announce", "0"))
	return topo.Clients[0], topo.Directors[0], rs, vip
}

// tunnelEcho sends an ICMP echo request from the client to the VIP through a tunnel that begins at the director.
func tunnelEcho(t *testing.T, director *lab.Host, client, vip, rs netip.Addr) {
	t.Helper()
	src, dst := client.As4(), vip.As4()
	b := []byte{0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0} // version, length 28, id, TTL, ICMP, checksum
	b = append(append(b, src[:]...), dst[:]...)
	b = append(b, 8, 0, 0, 0, 0x12, 0x34, 0, 1) // echo request, checksum, id, sequence
	for _, part := range [][]byte{b[:20], b[20:]} {
		sum := uint32(0)
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
		sum = sum>>16 + sum&0xffff
		at := 2 // of the checksum: in ICMP's header
		if len(part) == 20 {
			at = 10 // in IP's
		}
		part[at], part[at+1] = byte(^sum>>8), byte(^sum)
	}
	must(t, director.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_IPIP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: rs.As4()})
	}))
}

func TestServesUntilItIsToldToStop(t *testing.T) {
	client, director, rs, vip := network(t)
	p := start(t, rs.Namespace, "--director", director.Addr().String(), "--vip", vip.String(), "--tun", "vips0")
	atClient, err := client.Capture("eth0")
	must(t, err)
	tunnelEcho(t, director, client.Addr(), vip, rs.Addr())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	src, dst := vip.As4(), client.Addr().As4()
	if _, err := atClient.Wait(ctx, func(f lab.CapturedFrame) bool {
		return len(f.Data) >= 42 && bytes.Equal(f.Data[26:34], append(src[:], dst[:]...)) && bytes.Equal(f.Data[6:12], rs.Legs[0].MAC) &&
			f.Data[34] == 0 // echo reply
	}); err != nil {
		t.Errorf("no answer from the VIP at the client: %v\n%s", err, p.logged())
	}
	must(t, p.Process.Signal(syscall.SIGUSR1))
	if got := p.await(t, "packets", 1); got["received"] != 1.0 || got["delivered"] != 1.0 || got["bytes"] != 28.0 {
		t.Errorf("SIGUSR1 logged %v", got)
	}
	must(t, p.Process.Signal(syscall.SIGTERM))
	if err := p.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	p.await(t, "packets", 2)
	checkGone(t, rs, "vips0", "0 0")
}

func TestCrashLeavesNothingButSysctls(t *testing.T) {
	_, director, rs, vip := network(t)
	p := start(t, rs.Namespace, "--director", director.Addr().String(), "--vip", vip.String())
	must(t, p.Process.Kill())
	_ = p.Wait()
	checkGone(t, rs, "uvsdecap0", "1 2")
	p = start(t, rs.Namespace, "--director", director.Addr().String(), "--vip", vip.String())
	must(t, p.Process.Signal(syscall.SIGTERM))
	must(t, p.Wait())
}

// checkGone waits until the device is gone, and checks arp_ignore and arp_announce.
func checkGone(t *testing.T, rs *lab.Host, device, arp string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if _, err := rs.Index(device); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s is still there", device)
		}
	}
	ignore, err := rs.SysctlValue("net/ipv4/conf/all/arp_ignore")
	must(t, err)
	announce, err := rs.SysctlValue("net/ipv4/conf/all/arp_announce")
	must(t, err)
	if got := ignore + " " + announce; got != arp {
		t.Errorf("arp_ignore, arp_announce: %s, want %s", got, arp)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // of the error; empty for none
	}{
		{"--director 10.0.0.1 --vip 192.0.2.100", ""},
		{"--director 10.0.0.1,10.0.0.2/32 --director 10.1.0.0/16 --vip 192.0.2.100,192.0.2.101/32 --interface eth0", ""},
		{"--director 2001:db8::1,10.0.0.0/8 --vip 2001:db8::100,192.0.2.100 --gue-port 0", ""},
		{"--director 10.0.0.1 --vip 192.0.2.100 --gue-port 65536", "gue-port"},
		{"--director 10.0.0.1 --vip 2001:db8::/64", "an address is wanted"},
		{"--version", ""},
		{"--vip 192.0.2.100", "--director names nobody"},
		{"--director 10.0.0.1", "--vip names no virtual address"},
		{"--director 10.0.0.1 --vip 192.0.2.0/24", "an address is wanted"},
		{"--director nobody --vip 192.0.2.100", "nobody"},
		{"--director 10.0.0.1/33 --vip 192.0.2.100", "10.0.0.1/33"},
		{"--director 10.0.0.1, --vip 192.0.2.100", "ParseAddr"},
		{"--director 10.0.0.1 --vip 192.0.2.100 more", `unexpected argument "more"`},
	} {
		o, err := parseOptions(strings.Fields(c.args), io.Discard)
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		case err == nil && !o.version && o.decap.Device != "uvsdecap0":
			t.Errorf("%s: device %q", c.args, o.decap.Device)
		}
	}
	o, err := parseOptions(strings.Fields("--director 10.0.0.1,10.1.0.0/16 --vip 192.0.2.100 --vip 192.0.2.101 --tun t0"), io.Discard)
	must(t, err)
	if got := fmt.Sprint(o.decap.Directors, o.decap.VIPs, o.decap.Device); got != "[10.0.0.1/32 10.1.0.0/16] [192.0.2.100 192.0.2.101]t0" {
		t.Errorf("parsed %s", got)
	}
	if o.decap.GUEPort != 6080 {
		t.Errorf("GUE port %d unless told, want 6080", o.decap.GUEPort)
	}
	if _, err := newLogger("loud"); err == nil {
		t.Error("--log-level loud is accepted")
	}
	if err := run([]string{"--director", "10.0.0.1/8", "--vip", "192.0.2.100"}); err == nil || errors.Is(err, unix.EPERM) {
		t.Errorf("run() with bits behind a prefix = %v", err)
	}
}
