package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var traceRequests = []TraceRequest{
	{},
	{Client: netip.MustParseAddrPort("192.0.2.7:40000"), Service: &web, Server: netip.AddrPortFrom(rs11.Address, 0), Interface: "eth0",
		Verdicts: []string{"forwarded", "replied"}, Frames: true},
	{Client: netip.MustParseAddrPort("[2001:db8::7]:0"), Service: &mark, Server: netip.MustParseAddrPort("[2001:db8::11]:80")},
}

func TestTraceAsksForWhatItIsAskedFor(t *testing.T) {
	var got *TraceRequest
	want := TraceEvent{
		Missed: 3, Time: time.Unix(1, 5).UTC(), Verdict: "forwarded-dr", Meaning: "why", Waited: true, Opened: true, Connection: connection(1),
		In:  &TraceFrame{Interface: "eth0", Summary: "tcp", Length: 4, SegmentSize: 2, Data: []byte{0, 1, 2, 255}},
		Out: []TraceFrame{{Interface: "eth1", Summary: "tcp", Length: 1, Data: []byte{9}}, {Interface: "eth0", Summary: "arp"}},
	}
	c := serve(t, &stub{trace: func(_ context.Context, req *TraceRequest, yield func(*TraceEvent) error) error {
		got = req
		return yield(&want)
	}})
	for _, req := range traceRequests {
		var events []TraceEvent
		begun := false
		err := c.Trace(t.Context(), &req, func() error { begun = true; return nil }, func(e *TraceEvent) error {
			events = append(events, *e)
			return nil
		})
		if err != nil || !begun {
			t.Errorf("Trace(%+v) = %v, begun %v", req, err, begun)
		}
		if !reflect.DeepEqual(got, &req) {
			t.Errorf("asked for %+v, want %+v", got, &req)
		}
		if len(events) != 1 || !reflect.DeepEqual(events[0], want) {
			t.Errorf("got events %+v, want %+v", events, want)
		}
	}
}

// endless is a backend that traces until its context ends.
func endless(over chan<- error) *stub {
	return &stub{trace: func(ctx context.Context, _ *TraceRequest, yield func(*TraceEvent) error) error {
		for {
			if err := yield(&TraceEvent{Verdict: "x"}); err != nil {
				over <- err
				return err
			}
			select {
			case <-ctx.Done():
				over <- ctx.Err()
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
	}}
}

func TestATraceEndsWhenItsClientGoes(t *testing.T) {
	over := make(chan error, 1)
	c := serve(t, endless(over))
	enough := errors.New("enough")
	if err := c.Trace(t.Context(), &TraceRequest{}, func() error { return nil }, func(*TraceEvent) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Trace = %v, want %v", err, enough)
	}
	if err := <-over; err == nil {
		t.Error("the backend went on")
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Trace(ctx, &TraceRequest{}, func() error { return nil }, func(*TraceEvent) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Trace = %v, want %v", err, context.Canceled)
	}
	<-over
}

func TestATraceDoesNotKeepTheServerFromEnding(t *testing.T) {
	l, err := Listen(filepath.Join(t.TempDir(), "uvsd.sock"), "no-such-group")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, endless(over)) }()
	c := NewClient(l.Addr().String())
	defer c.Close()
	began := time.Now()
	err = c.Trace(t.Context(), &TraceRequest{}, func() error { return nil }, func(*TraceEvent) error {
		began = time.Now()
		cancel()
		return nil
	})
	if err != nil {
		t.Errorf("Trace = %v when the server ends, want nil", err)
	}
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("the backend's trace ended with %v, want %v", err, context.Canceled)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d >= closeTimeout {
		t.Errorf("the server took %v to end: it waited for the trace", d)
	}
}

func TestATraceThatIsRefusedSaysWhy(t *testing.T) {
	c := serve(t, &stub{err: Errorf(Invalid, "no such interface")})
	err := c.Trace(t.Context(), &TraceRequest{}, func() error { t.Error("it began"); return nil }, func(*TraceEvent) error { return nil })
	if !errors.Is(err, Invalid) {
		t.Errorf("Trace = %v, want %v", err, Invalid)
	}
	broken := serve(t, &stub{trace: func(context.Context, *TraceRequest, func(*TraceEvent) error) error { return fmt.Errorf("bad luck") }})
	err = broken.Trace(t.Context(), &TraceRequest{}, func() error { return nil }, func(*TraceEvent) error { return nil })
	if !errors.Is(err, Internal) || !strings.Contains(err.Error(), "bad luck") {
		t.Errorf("Trace = %v, want the backend's error", err)
	}
}

func TestMalformedTraceQueriesAreRefused(t *testing.T) {
	c := serve(t, &stub{trace: func(context.Context, *TraceRequest, func(*TraceEvent) error) error { return nil }})
	for _, q := range []string{
		"client=", "client=nobody", "client=192.0.2.1&client=192.0.2.2", "client=::ffff:192.0.2.1", "client=fe80::1%25eth0",
		"server=192.0.2.1:99999", "frames=perhaps", "interface=a&interface=b", "port=80", "protocol=tcp&address=192.0.2.1&port=x",
		"fwmark=0&family=ipv4", "colour=red", "%zz", strings.Repeat("verdict=x&", maxVerdicts+1),
	} {
		if status, reply := raw(t, c, http.MethodGet, "/v1/trace?"+q, ""); status != http.StatusBadRequest {
			t.Errorf("GET /v1/trace?%.60s: %d %s, want 400", q, status, reply)
		}
	}
}

func FuzzDecodeTrace(f *testing.F) {
	for i := range traceRequests {
		f.Add(traceRequests[i].query().Encode())
	}
	f.Add("client=192.0.2.1&frames=1")
	f.Fuzz(func(t *testing.T, query string) {
		r, err := DecodeTrace(query)
		if err != nil {
			return
		}
		again, err := DecodeTrace(r.query().Encode())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%q reads as %+v, which reads as %+v, %v", query, r, again, err)
		}
	})
}
