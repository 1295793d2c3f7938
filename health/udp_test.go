package health

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// echoUDP is a UDP server on the loopback that answers each datagram with what reply makes of it.
func echoUDP(t *testing.T, reply func(question string) []string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			for _, answer := range reply(string(b[:n])) {
				pc.WriteTo([]byte(answer), from)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().String()
}

// freePort is a UDP address on the loopback where nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return pc.LocalAddr().String()
}

func TestUDP(t *testing.T) {
	echo := echoUDP(t, func(q string) []string { return []string{"late answer", q + "!"} })
	mute := echoUDP(t, func(string) []string { return nil })
	soon := Duration(100 * time.Millisecond)
	for _, c := range []struct {
		situation string
		check     UDP
		at, want  string
	}{
		{"the expected answer, behind another", UDP{Request: `\x00ping`, Expect: `\x00ping!`}, echo, "6 bytes"},
		{"one that matches", UDP{Request: "ping", Match: "^p.*!$"}, echo, "5 bytes"},
		{"both", UDP{Request: "ping", Expect: "ping", Match: "!"}, echo, "5 bytes"},
		{"any answer", UDP{Request: "ping"}, echo, "11 bytes"},
		{"silence, and nothing is expected", UDP{Request: "ping", Wait: soon}, mute, "no objection"},
		{"nobody listens", UDP{Request: "ping"}, freePort(t), "down: port unreachable"},
		{"nobody listens, and an answer is expected", UDP{Request: "ping", Expect: "x"}, freePort(t), "down: port unreachable"},
	} {
		t.Run(c.situation, func(t *testing.T) { wants(t, &c.check, at(c.at), c.want) })
	}
	for situation, c := range map[string]struct{ at, want string }{
		"other answers": {echo, "none of 2 answers is the expected one"}, "silence": {mute, silence},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := prepared(t, &UDP{Request: "ping", Expect: "pong"}).Probe(ctx, at(c.at))
		cancel()
		if err == nil || !strings.Contains(explain(err, ""), c.want) {
			t.Errorf("%s: %v, want %q", situation, err, c.want)
		}
	}
	for option, u := range map[string]UDP{
		"request": {Request: `\x`}, "expect": {Expect: `\`}, "match": {Match: "["}, "wait": {Wait: -1},
	} {
		refuses(t, &u, option)
	}
	refuses(t, &UDP{Request: strings.Repeat("x", maxDatagram+1)}, "request")
}

func TestUDPTellsEveryByte(t *testing.T) {
	to := at(echoUDP(t, func(q string) []string { return []string{q + q} }))
	var said []string
	to.Record = func(sent bool, data []byte) {
		said = append(said, map[bool]string{true: "> ", false: "< "}[sent]+string(data))
	}
	wants(t, &UDP{Request: `a\n`, Expect: "a"}, to, "4 bytes")
	if want := []string{"> a\n", "< a\na\n"}; !slices.Equal(said, want) {
		t.Errorf("recorded %q, want %q", said, want)
	}
}

func TestTCPConnects(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := at(ln.Addr().String())
	to.Dial = func(ctx context.Context, network string) (net.Conn, error) {
		return DialDirect(ctx, network, to.Address)
	}
	wants(t, &TCP{}, to, "connected")
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server reads %v, want a reset, which leaves no connection in TIME_WAIT", err)
	}
	ln.Close()
	wants(t, &TCP{}, to, "down: connection refused")
}
