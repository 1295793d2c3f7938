package health

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// at is the target at a loopback address where a server of the test's listens.
func at(address string) *Target {
	server := netip.MustParseAddrPort(address)
	return &Target{Server: server, Address: server, Dial: func(ctx context.Context, network string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}
}

// answers is a target whose connections serve answers, each in a goroutine of its own that ends with the connection.
func answers(serve func(conn net.Conn)) *Target {
	server := netip.MustParseAddrPort("192.0.2.11:7")
	return &Target{Server: server, Address: server, Dial: func(context.Context, string) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			serve(there)
		}()
		return here, nil
	}}
}

// shortly ends a probe of a server that should answer at once, on a busy machine too.
func shortly(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// prepared is a check whose options are good.
func prepared(t testing.TB, p Prober) Prober {
	t.Helper()
	if err := p.Prepare(); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	return p
}

// wants has p ask and compares: want is the beginning of what the server says, or, after "down: ", a part of why it is down.
func wants(t *testing.T, p Prober, to *Target, want string) {
	t.Helper()
	said, err := prepared(t, p).Probe(shortly(t), to)
	if part, down := strings.CutPrefix(want, "down: "); down {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Probe() = %q, %v; want an error with %q", said, err, part)
		}
	} else if err != nil || !strings.HasPrefix(said, want) {
		t.Errorf("Probe() = %q, %v; want %q", said, err, want)
	}
}

// refuses says that options are wrong, and which.
func refuses(t *testing.T, p Prober, option string) {
	t.Helper()
	if err := p.Prepare(); err == nil || !strings.HasPrefix(err.Error(), option+": ") {
		t.Errorf("Prepare() = %v, want an error that begins with %q", err, option+": ")
	}
}
