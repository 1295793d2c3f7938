package health

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// at is the target at a loopback address where a server of the test's listens.
func at(address string) *Target {
	server := netip.MustParseAddrPort(address)
	return &Target{Server: server, Address: server, Dial: func(ctx context.Context, network string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}
}

// served is answers' target, for whose servers the test waits.
func served(t *testing.T, serve func(conn net.Conn)) *Target {
	var over sync.WaitGroup
	t.Cleanup(over.Wait)
	to := answers(func(conn net.Conn) {
		defer over.Done()
		serve(conn)
	})
	dial := to.Dial
	to.Dial = func(ctx context.Context, network string) (net.Conn, error) {
		over.Add(1)
		return dial(ctx, network)
	}
	return to
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

// testTLS is a TLS server's configuration with a certificate for example.com.
func testTLS(t testing.TB) *tls.Config {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}}
}

// tlsServer is the server's end of a TLS connection.
func tlsServer(conn net.Conn, config *tls.Config) net.Conn { return tls.Server(conn, config) }

// benchmark has a check ask as often as it can, some tens at a time.
func benchmark(b *testing.B, p Prober, to *Target) {
	b.Helper()
	prepared(b, p)
	b.ReportAllocs()
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
			if _, err := p.Probe(ctx, to); err != nil {
				b.Error(err)
			}
			cancel()
		}
	})
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checks/s")
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/1e3/float64(b.N), "µs-CPU/check") // says it on a busy machine too
}

// refuses says that options are wrong, and which.
func refuses(t *testing.T, p Prober, option string) {
	t.Helper()
	if err := p.Prepare(); err == nil || !strings.HasPrefix(err.Error(), option+": ") {
		t.Errorf("Prepare() = %v, want an error that begins with %q", err, option+": ")
	}
}
