package ipvsadm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"uvs/control/api"
)

// tracing is what the word trace was asked for.
type tracing struct {
	api.TraceRequest
	count  int           // events after which it ends; 0 is none
	length time.Duration // after which it ends; 0 is none
	file   string        // to write, "-" is the standard output; empty is text
	json   bool
}

// trace is the word trace: frames as they pass, each with what becomes of it.
func (r *run) trace(args []string) (err error) {
	t, err := traceRequest(args)
	if err == nil {
		err = t.Check()
	}
	if err != nil {
		return r.complain("trace", "%v", err)
	}
	ctx, stop := signal.NotifyContext(r.ctx, os.Interrupt, syscall.SIGTERM) // to say how much it was
	defer stop()
	if t.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.length)
		defer cancel()
	}
	show, done, err := r.tracePrinter(t)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	var frames int
	var missed uint64
	err = r.Backend.Trace(ctx, &t.TraceRequest, func() error {
		fmt.Fprintf(r.Stderr, "%s: tracing %s; an interrupt ends it\n", filepath.Base(r.Name), t.String())
		return nil
	}, func(e *api.TraceEvent) error {
		if e.Missed > 0 {
			missed += e.Missed
			fmt.Fprintf(r.Stderr, "%s: %s too many for the trace: not shown, though they went their way\n", filepath.Base(r.Name), count(e.Missed, "frame"))
		}
		if e.Verdict == "" {
			return nil
		}
		frames++
		if err := show(frames, e); err != nil {
			return err
		}
		if frames == t.count {
			return errTraced
		}
		return nil
	})
	if errors.Is(err, errTraced) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	fmt.Fprintf(r.Stderr, "%s: %s traced, %d missed\n", filepath.Base(r.Name), count(uint64(frames), "frame"), missed)
	return errors.Join(err, done())
}

// errTraced ends a trace that has all it was asked for.
var errTraced = errors.New("traced enough")

// tracePrinter returns what shows the n-th event, and what ends the output.
func (r *run) tracePrinter(t *tracing) (show func(n int, e *api.TraceEvent) error, done func() error, err error) {
	done = func() error { return nil }
	switch {
	case t.file != "":
		w := r.Stdout
		if t.file != "-" {
			f, err := os.Create(t.file)
			if err != nil {
				return nil, nil, err
			}
			w, done = f, f.Close
		}
		p, err := newPcapng(w)
		if err != nil {
			return nil, nil, errors.Join(err, done())
		}
		return func(_ int, e *api.TraceEvent) error { return p.event(e) }, done, nil
	case t.json:
		enc := json.NewEncoder(r.Stdout)
		return func(_ int, e *api.TraceEvent) error { return enc.Encode(e) }, done, nil
	}
	return func(n int, e *api.TraceEvent) error {
		printEvent(r.out, n, e, cmp.Or(r.Zone, time.Local))
		return r.out.Flush()
	}, done, nil
}

// printEvent prints an event: the frame, its verdict, and what was sent of it.
func printEvent(w io.Writer, n int, e *api.TraceEvent, zone *time.Location) {
	fmt.Fprintf(w, "#%d %s %s in  %s, %s\n", n, e.Time.In(zone).Format("15:04:05.000000"), e.In.Interface, e.In.Summary, size(e.In))
	fmt.Fprintf(w, "    %s\n", because(e))
	for i := range e.Out {
		f := &e.Out[i]
		fmt.Fprintf(w, "    %s out %s, %s\n", f.Interface, f.Summary, size(f))
	}
}

func size(f *api.TraceFrame) string {
	if f.SegmentSize > 0 {
		return fmt.Sprintf("%d bytes in segments of %d", f.Length, f.SegmentSize)
	}
	return count(uint64(f.Length), "byte")
}

// because is an event's verdict, why, and its connection.
func because(e *api.TraceEvent) string {
	s := e.Verdict + ": " + e.Meaning
	if e.Waited {
		s += ", after it waited for the next hop"
	}
	if c := e.Connection; c != nil {
		s += fmt.Sprintf("; %s %s %v to %v at %v, %s", choose(e.Opened, "opens", "of"), c.Protocol, c.Client, c.Virtual, c.Server, c.State)
	}
	return s
}

// String says what is traced.
func (t *tracing) String() string {
	var s []string
	add := func(what string, v any) { s = append(s, fmt.Sprintf("%s %v", what, v)) }
	if t.Client.IsValid() {
		add("client", end(t.Client))
	}
	if t.Service != nil {
		add("service", t.Service)
	}
	if t.Server.IsValid() {
		add("server", end(t.Server))
	}
	if t.Interface != "" {
		add("interface", t.Interface)
	}
	if len(t.Verdicts) > 0 {
		add("verdict", strings.Join(t.Verdicts, " or "))
	}
	if len(s) == 0 {
		return "all frames"
	}
	return strings.Join(s, ", ")
}

// end is an address, with its port if it has one.
func end(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

func traceRequest(args []string) (*tracing, error) {
	t := new(tracing)
	six := false
	for len(args) > 0 {
		option, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		switch {
		case joined:
		case option == "--json":
			t.json = true
			continue
		case option == "-6" || option == "--ipv6":
			six = true
			continue
		case len(args) == 0:
			return nil, fmt.Errorf("%s: a value is missing", option)
		default:
			value, args = args[0], args[1:]
		}
		if err := t.option(option, value); err != nil {
			return nil, fmt.Errorf("%s %s: %w", option, value, err)
		}
	}
	switch {
	case t.json && t.file != "":
		return nil, errors.New("either --json or -w")
	case six && (t.Service == nil || t.Service.FWMark == 0):
		return nil, errors.New("-6 goes with -f")
	case six:
		t.Service.Family = api.IPv6
	}
	t.Frames = t.json || t.file != ""
	return t, nil
}

func (t *tracing) option(option, value string) (err error) {
	protocol := ""
	switch option {
	case "--client":
		t.Client, err = api.ParseEnd(value)
	case "--server":
		t.Server, err = api.ParseEnd(value)
	case "-t", "--tcp-service":
		protocol = api.TCP
	case "-u", "--udp-service":
		protocol = api.UDP
	case "--sctp", "--sctp-service":
		protocol = api.SCTP
	case "-f", "--fwmark-service":
		var n uint64
		if n, err = strconv.ParseUint(value, 0, 32); err == nil && n == 0 {
			err = errors.New("a mark is not 0")
		}
		err = errors.Join(err, t.service(&api.ServiceKey{FWMark: uint32(n), Family: api.IPv4}))
	case "--verdict":
		t.Verdicts = append(t.Verdicts, strings.Split(value, ",")...)
	case "--interface", "-i":
		t.Interface = value
	case "-c", "--count":
		if t.count, err = strconv.Atoi(value); err == nil && t.count < 1 {
			err = errors.New("at least one")
		}
	case "--for":
		if t.length, err = time.ParseDuration(value); err == nil && t.length <= 0 {
			err = errors.New("a time that is over")
		}
	case "-w", "--write":
		t.file = value
	default:
		err = errors.New("no such option")
	}
	if protocol != "" {
		var a netip.AddrPort
		if a, err = api.ParseEnd(value); err == nil {
			err = t.service(&api.ServiceKey{Protocol: protocol, Address: a.Addr(), Port: a.Port()})
		}
	}
	return err
}

func (t *tracing) service(k *api.ServiceKey) error {
	if t.Service != nil {
		return errors.New("one service at a time")
	}
	t.Service = k
	return nil
}
