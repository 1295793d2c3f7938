package health

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// own is a pinger that the test waits for: the receivers end by themselves.
func own(t testing.TB, idle time.Duration) *pinger {
	p := newPinger(net.ListenPacket, idle)
	t.Cleanup(p.wait)
	return p
}

func (p *pinger) wait() {
	p.v4.over.Wait()
	p.v6.over.Wait()
}

func host(address string) *Target {
	return &Target{Server: netip.AddrPortFrom(netip.MustParseAddr(address), 80)}
}

func TestICMP(t *testing.T) {
	p := own(t, 20*time.Millisecond)
	for _, size := range []int{0, 8, 9000} {
		wants(t, &ICMP{Size: size, pinger: p}, host("127.0.0.1"), "echo")
		wants(t, &ICMP{Size: size, pinger: p}, host("::1"), "echo")
	}
	refuses(t, &ICMP{Size: 7}, "size")
	refuses(t, &ICMP{Size: 65500}, "size")
}

// Each of many questions at once gets its own answer, and the socket goes when none is out.
func TestPingsShareASocket(t *testing.T) {
	p := own(t, 20*time.Millisecond)
	var all sync.WaitGroup
	for i := range 1000 {
		all.Go(func() {
			if err := p.echo(shortly(t), netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}), 56, nil); i != 0 && err != nil {
				t.Errorf("127.0.%d.%d: %v", i>>8, i&255, err)
			}
		})
	}
	all.Wait()
	p.wait()
	if p.v4.conn != nil { // nobody else is left to look at it
		t.Error("the socket is still open")
	}
	if err := p.echo(shortly(t), netip.MustParseAddr("127.0.0.1"), 56, nil); err != nil {
		t.Errorf("after it was closed: %v", err)
	}
	p.wait()
}

// What isn't the answer to a question is not taken for it: another number, host, cookie; nor a message that is cut.
func TestForgedEchoIsIgnored(t *testing.T) {
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	q := &ping{to: here, cookie: [8]byte{1, 2, 3}, result: make(chan error, 1)}
	p := &pinger{id: 0x1234, out: [2]map[uint16]*ping{{5: q}, {}}}
	good := []byte{0, 0, 0, 0, 0x12, 0x34, 0, 5, 1, 2, 3, 0, 0, 0, 0, 0}
	for name, change := range map[string]func(b []byte) (from netip.Addr, out []byte){
		"id":     func(b []byte) (netip.Addr, []byte) { b[4]++; return here, b },
		"number": func(b []byte) (netip.Addr, []byte) { b[7]++; return here, b },
		"cookie": func(b []byte) (netip.Addr, []byte) { b[9]++; return here, b },
		"host":   func(b []byte) (netip.Addr, []byte) { return there, b },
		"short":  func(b []byte) (netip.Addr, []byte) { return here, b[:15] },
	} {
		from, b := change(append([]byte(nil), good...))
		p.match(0, b, from, nil)
		if len(q.result) != 0 {
			t.Errorf("%s: taken for the answer", name)
		}
	}
	p.match(0, good, here, nil)
	p.match(0, good, here, nil)
	if len(q.result) != 1 || <-q.result != nil {
		t.Error("the answer was not taken")
	}
}

func TestPingEndsWithItsContext(t *testing.T) {
	p := own(t, 300*time.Millisecond)
	to := netip.MustParseAddr("127.0.0.1")
	if err := p.echo(shortly(t), to, 56, nil); err != nil {
		t.Fatal(err)
	}
	raw, release, err := p.v4.use()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), solRaw, icmpFilter, -1) }); e != nil || err != nil {
		t.Fatal(e, err) // no answer passes any more
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.echo(ctx, to, 56, nil); !errors.Is(err, os.ErrDeadlineExceeded) || err.Error() != "no echo: timed out" {
		t.Errorf("echo() = %v, want that it timed out", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.out[0]) != 0 {
		t.Error("the question is still waiting")
	}
}

// A router that knows no way ends the question at once.
func TestUnreachableEndsAPing(t *testing.T) {
	for _, c := range []struct {
		kind byte
		want string
	}{{icmp4Unreachable, "192.0.2.254 says that the host is unreachable"}, {icmp4Exceeded, "192.0.2.254 says that the way is too long"}} {
		q := &ping{to: netip.MustParseAddr("192.0.2.1"), result: make(chan error, 1)}
		p := &pinger{id: 0x1234, out: [2]map[uint16]*ping{{5: q}, {}}}
		b := bytes.Clone(hostUnreachable)
		b[20] = c.kind
		p.heard4(b, nil, nil)
		if len(q.result) == 0 {
			t.Fatal("not taken for an answer")
		}
		if err := <-q.result; err == nil || err.Error() != c.want {
			t.Errorf("the question ended with %v, want %s", err, c.want)
		}
	}
}

// hostUnreachable is 192.0.2.254's message to 192.0.2.9 that its echo request 5 cannot reach 192.0.2.1.
var hostUnreachable = []byte{0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 254, 192, 0, 2, 9, 3, 1, 0, 0, 0, 0, 0, 0,
	0x45, 0, 0, 36, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 9, 192, 0, 2, 1, 8, 0, 0, 0, 0x12, 0x34, 0, 5}

// FuzzICMPAnswer: whatever comes by the raw socket is looked at within its bounds.
func FuzzICMPAnswer(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 36, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 9, 0, 0, 0, 0, 0x12, 0x34, 0, 5, 1, 2, 3, 0, 0, 0, 0, 0}, false)
	f.Add(hostUnreachable, false)
	f.Add([]byte{129, 0, 0, 0, 0x12, 0x34, 0, 5, 1, 2, 3, 0, 0, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		q := &ping{to: netip.MustParseAddr("192.0.2.1"), cookie: [8]byte{1, 2, 3}, result: make(chan error, 1)}
		p := &pinger{id: 0x1234, out: [2]map[uint16]*ping{{5: q}, {5: q}}}
		if v6 {
			p.heard6(b, nil, &unix.SockaddrInet6{})
		} else {
			p.heard4(b, nil, nil)
		}
	})
}
