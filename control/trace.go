package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/packet"
)

// missedEvery is how often a trace tells of missing frames if no other comes.
const missedEvery = time.Second

// Trace implements api.Backend.
func (d *Director) Trace(ctx context.Context, r *api.TraceRequest, begun func() error, yield func(*api.TraceEvent) error) error {
	if d.cfg.Trace == nil {
		return refusal(api.Unsupported, "trace: there is no packet path to ask")
	}
	f, err := d.traceFilter(r)
	if err != nil {
		return tried(err, "trace")
	}
	t, err := d.cfg.Trace(*f)
	if errors.Is(err, dataplane.ErrTooManyTraces) {
		return refusal(api.NoMemory, "trace: %v", err)
	} else if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	defer t.Close()
	if err := begun(); err != nil {
		return err
	}
	tick := time.NewTicker(missedEvery)
	defer tick.Stop()
	var told uint64
	for {
		out := new(api.TraceEvent)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-t.Events():
			d.fillEvent(out, e, r.Frames)
			t.Took(e)
		case <-tick.C:
		}
		missed := t.Missed()
		out.Missed, told = missed-told, missed
		if out.Missed == 0 && out.Verdict == "" {
			continue
		}
		if err := yield(out); err != nil {
			return err
		}
	}
}

// traceFilter is a request in the terms of the packet path.
func (d *Director) traceFilter(r *api.TraceRequest) (*dataplane.TraceFilter, error) {
	f := &dataplane.TraceFilter{
		Client: packet.AddrFrom(r.Client.Addr()), ClientPort: r.Client.Port(),
		Server: packet.AddrFrom(r.Server.Addr()), ServerPort: r.Server.Port(),
		Port: -1,
	}
	if r.Service != nil {
		k := keyOf(r.Service)
		f.Service = &k
	}
	if r.Interface != "" {
		if f.Port = slices.Index(d.cfg.Interfaces, r.Interface); f.Port < 0 {
			return nil, refusal(api.Invalid, "uvsd is not attached to interface %q but to %s", r.Interface, strings.Join(d.cfg.Interfaces, ", "))
		}
	}
	for _, name := range r.Verdicts {
		if f.Verdicts == nil {
			f.Verdicts = new(dataplane.VerdictSet)
		}
		if !f.Verdicts.Add(name) {
			return nil, refusal(api.Invalid, "no verdict is called %q, nor a class of them: forwarded, answered, passed, dropped", name)
		}
	}
	return f, nil
}

// fillEvent makes out of a traced frame what the API says of it.
func (d *Director) fillEvent(out *api.TraceEvent, e *dataplane.Traced, withData bool) {
	now := d.cfg.Now()
	out.Time = time.Now().Add(time.Duration(e.At - now)).UTC()
	out.Verdict, out.Waited, out.Opened = e.Verdict.String(), e.Waited, e.Opened
	if e.Connected {
		out.Connection = connection(&e.Conn, e.At)
	}
	out.Meaning = e.Verdict.Meaning()
	if c := out.Connection; c != nil {
		switch e.Verdict {
		case dataplane.ForwardedDR, dataplane.ForwardedNAT, dataplane.ForwardedTUN, dataplane.ForwardedLocal:
			out.Meaning = strings.Replace(out.Meaning, "a real server", fmt.Sprintf("real server %v", c.Server), 1)
		case dataplane.Replied:
			out.Meaning = strings.Replace(out.Meaning, "a real server's", fmt.Sprintf("real server %v's", c.Server), 1)
		}
	}
	in := d.frame(&e.In, withData)
	out.In = &in
	for i := range e.Out {
		out.Out = append(out.Out, d.frame(&e.Out[i], withData))
	}
}

func (d *Director) frame(f *dataplane.TracedFrame, withData bool) api.TraceFrame {
	out := api.TraceFrame{Interface: "host", Summary: summary(f.Bytes), Length: len(f.Bytes), SegmentSize: f.SegmentSize}
	if f.Port < len(d.cfg.Interfaces) { // behind them is the host's own stack
		out.Interface = d.cfg.Interfaces[f.Port]
	}
	if withData {
		out.Data = f.Bytes
	}
	return out
}
