package dialer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// ways are the forwarding methods, families and encapsulations.
var ways = []struct {
	name    string
	vip     netip.Addr
	rip     netip.Addr
	method  service.Method
	encap   service.Encap
	inner   int // bytes in front of what the server unpacks
	port    uint16
	hostMAC bool
}{
	{"DR", vip, rip, service.Route, service.Encap{}, 0, 80, false},
	{"DR6", vip6, rip6, service.Route, service.Encap{}, 0, 80, false},
	{"DRFromHost", vip, rip, service.Route, service.Encap{}, 0, 80, true},
	{"IPIP", vip, rip, service.Tunnel, service.Encap{}, 20, 80, false},
	{"IPv6InIPv4", vip6, rip, service.Tunnel, service.Encap{}, 20, 80, false},
	{"GRE", vip, rip, service.Tunnel, service.Encap{Kind: service.GRE}, 24, 80, false},
	{"GUE", vip, rip, service.Tunnel, service.Encap{Kind: service.GUE, Port: 6080}, 32, 80, false},
	{"NAT", vip, rip, service.Masq, service.Encap{}, 0, 8080, false},
}

// body is longer than a window of what a connection may have received and nobody read.
var body = strings.Repeat("all the real server has to say. ", 8<<10)

func TestHTTPThroughVirtualAddress(t *testing.T) {
	for _, tt := range ways {
		t.Run(tt.name, func(t *testing.T) {
			at := netip.AddrPortFrom(tt.vip, 80)
			if tt.method == service.Masq {
				at = netip.AddrPortFrom(tt.rip, tt.port)
			}
			w := newWorld(t, at.Addr())
			w.inner, w.hostMAC = tt.inner, tt.hostMAC
			if tt.hostMAC {
				w.lose.Store(0)
			} else {
				w.lose.Store(29) // TCP mends that
			}
			s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, r.Host, body) })}
			l := w.listen(at)
			go func() { _ = s.Serve(l) }()
			t.Cleanup(func() { _ = s.Close() })
			to := w.serve(netip.AddrPortFrom(tt.vip, 80), netip.AddrPortFrom(tt.rip, tt.port), tt.method, tt.encap)
			client := http.Client{Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return w.dialer.Dial(ctx, network, to)
				},
			}}
			t.Cleanup(client.CloseIdleConnections)
			r, err := http.NewRequestWithContext(patiently(t), http.MethodGet, "http://www.example/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || string(got) != "www.example"+body {
				t.Fatalf("%d bytes of answer, %v", len(got), err)
			}
			if n := w.rs.Active() + w.rs.Inactive(); n != 0 {
				t.Errorf("the server has %d connections of ours", n)
			}
		})
	}
}

func TestUDPThroughVirtualAddress(t *testing.T) {
	w := newWorld(t, vip)
	pc, err := gonet.DialUDP(w.stack, &tcpip.FullAddress{Addr: tcpip.AddrFromSlice(vip.AsSlice()), Port: 53}, nil, protocol(vip))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(bytes.ToUpper(b[:n]), from)
		}
	}()
	c, err := w.dialer.Dial(patiently(t), "udp", Target{Address: netip.AddrPortFrom(vip, 53), Server: netip.AddrPortFrom(rip, 53), Method: service.Route, RS: service.NoServer})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.(net.PacketConn); !ok {
		t.Error("libraries will take it for TCP")
	}
	b := make([]byte, 100)
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("who?")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(b); err != nil || string(b[:n]) != "WHO?" {
		t.Errorf("answer %q, %v", b[:n], err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read without an answer: %v", err)
	}
	// A port that nobody has: the server says so by ICMP.
	_ = c.Close()
	if c, err = w.dialer.Dial(patiently(t), "udp", Target{Address: netip.AddrPortFrom(vip, 54), Server: netip.AddrPortFrom(rip, 54), Method: service.Route, RS: service.NoServer}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("who?")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(b); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Read of a port that nobody has: %v", err)
	}
}

func TestDialHearsWhy(t *testing.T) {
	to := Target{Address: netip.AddrPortFrom(vip, 80), Server: netip.AddrPortFrom(rip, 80), Method: service.Route, RS: service.NoServer}
	t.Run("refused", func(t *testing.T) {
		w := newWorld(t, vip)
		if _, err := w.dialer.Dial(patiently(t), "tcp", to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial: %v", err)
		}
	})
	t.Run("virtual address missing", func(t *testing.T) {
		w := newWorld(t, rip)
		w.listen(netip.AddrPortFrom(rip, 80))
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := w.dialer.Dial(ctx, "tcp", to); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial: %v", err)
		}
	})
	t.Run("sent back", func(t *testing.T) {
		w := newWorld(t)
		w.answer = func(eth []byte) [][]byte {
			back := bytes.Clone(eth)
			packet.PutEth(back, ourMAC, serverMAC, packet.EtherIPv4)
			return [][]byte{back}
		}
		if _, err := w.dialer.Dial(patiently(t), "tcp", to); err == nil || !strings.Contains(err.Error(), "doesn't have the virtual address") {
			t.Errorf("Dial: %v", err)
		}
	})
	t.Run("no tunnel", func(t *testing.T) {
		w := newWorld(t)
		w.answer = func(eth []byte) [][]byte {
			var p packet.Packet
			if packet.Decode(eth, &p) != packet.NoFault {
				return nil
			}
			b := forward.Unreachable(make([]byte, 2048), &p, forward.NoProtocol, 0, rip4())
			packet.PutEth(b[packet.VnetLen:], hostMAC, serverMAC, packet.EtherIPv4)
			return [][]byte{b[packet.VnetLen:]}
		}
		to := w.serve(to.Address, to.Server, service.Tunnel, service.Encap{})
		if _, err := w.dialer.Dial(patiently(t), "tcp", to); !errors.Is(err, syscall.EPROTONOSUPPORT) {
			t.Errorf("Dial: %v", err)
		}
	})
	t.Run("no route", func(t *testing.T) {
		w := newWorld(t)
		to := to
		to.Server = netip.MustParseAddrPort("203.0.113.9:80")
		if _, err := w.dialer.Dial(patiently(t), "tcp", to); err == nil {
			t.Error("Dial succeeds")
		}
	})
}

func rip4() packet.Addr { return packet.AddrFrom(rip) }

func TestManyConnectionsGiveEverythingBack(t *testing.T) {
	w := newWorld(t, vip)
	l := w.listen(netip.AddrPortFrom(vip, 80))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	to := w.serve(netip.AddrPortFrom(vip, 80), netip.AddrPortFrom(rip, 80), service.Route, service.Encap{})
	before := runtime.NumGoroutine()
	var all sync.WaitGroup
	for range 25 {
		all.Go(func() {
			for range 8 {
				c, err := w.dialer.Dial(patiently(t), "tcp", to)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.Close()
			}
		})
	}
	all.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		w.dialer.mu.Lock()
		leaving := len(w.dialer.leaving)
		w.dialer.mu.Unlock()
		w.dialer.link.mu.RLock()
		passages := len(w.dialer.link.passages)
		w.dialer.link.mu.RUnlock()
		if leaving == 0 && passages == 0 && runtime.NumGoroutine() <= before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections leave, %d passages are open, %d goroutines, before it were %d", leaving, passages, runtime.NumGoroutine(), before)
		}
	}
	if n := w.plane.Stats().LostOfPassages; n != 0 {
		t.Errorf("%d packets were lost", n)
	}
}
