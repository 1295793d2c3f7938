package dataplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/lab"
	"uvs/sched"
	"uvs/service"
)

// TestRealInterfacesThatReturn takes the cable between a client and a director with two workers away, and plugs in another
// with interfaces of the same names.
func TestRealInterfacesThatReturn(t *testing.T) {
	l, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	space := func(name string) *lab.Namespace {
		n, err := l.Namespace(name)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	dir, cli := space("director"), space("client")
	cable := func() {
		t.Helper()
		err := errors.Join(l.AddVeth(lab.End{Namespace: dir, Name: "eth0"}, lab.End{Namespace: cli, Name: "eth0"}, 0),
			cli.AddAddr("eth0", netip.MustParsePrefix("10.9.0.7/24")))
		if err != nil {
			t.Fatal(err)
		}
	}
	cable()
	servers := new(service.ServerIndex)
	conns, err := conntrack.New(conntrack.Config{Servers: servers})
	if err != nil {
		t.Fatal(err)
	}
	in := func(open func() (*link.Socket, error)) (s link.Link, err error) { // the director's namespace
		return s, dir.Do(func() error {
			socket, err := open()
			if err == nil {
				s = socket
			}
			return err
		})
	}
	plane, err := New(Config{
		Ports: []Port{{Name: "eth0", MAC: cliMAC}}, Workers: 2, Conns: conns, NextHops: new(nexthop.Static),
		OpenRx: func(_, _ int) (link.Link, error) {
			return in(func() (*link.Socket, error) {
				return link.Open(link.Config{Interface: "eth0", Unicast: [][6]byte{cliMAC}, Fanout: link.Fanout{Group: 77}})
			})
		},
		OpenTx: func(int) (link.Link, error) {
			return in(func() (*link.Socket, error) { return link.OpenTx(link.Config{Interface: "eth0"}) })
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer plane.Close()
	rr, err := sched.New("rr", 0)
	if err != nil {
		t.Fatal(err)
	}
	vs := &service.VirtualService{Key: service.Key{Proto: service.TCP, Addr: netip.AddrPortFrom(vip, 80)}, Scheduler: rr}
	plane.Publish(service.NewTable([]*service.VirtualService{vs}, servers, 1))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- plane.Run(ctx) }()

	refused := func() error { // by uvs: the client has resolved the VIP and got an answer
		conn, err := cli.Dial("udp", netip.AddrPortFrom(vip, 81).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("anybody there?")); err != nil {
			return err
		}
		conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = conn.Read(make([]byte, 64))
		return err
	}
	await := func(what string) {
		t.Helper()
		var err error
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if err = refused(); errors.Is(err, syscall.ECONNREFUSED) {
				return
			}
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatalf("%s: no answer from the VIP", what)
		}
		t.Fatalf("%s: %v", what, err)
	}
	await("at first")
	if err := dir.DeleteLink("eth0"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	cable()
	await("after the interface returned")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := plane.LinkStats(0); s.RxFrames == 0 || s.TxFrames == 0 {
		t.Errorf("link counters %+v", s)
	}
	if got := plane.Stats().Verdicts[AnsweredICMP]; got < 2 {
		t.Errorf("%d refusals, want one for each cable", got)
	}
}
