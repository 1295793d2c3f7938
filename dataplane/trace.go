package dataplane

import (
	"errors"
	"slices"
	"sync/atomic"

	"uvs/conntrack"
	"uvs/packet"
	"uvs/service"
)

// What a trace may cost. Beyond it frames are not traced, which is counted; they go their way all the same.
const (
	maxTraces  = 8        // at once
	traceQueue = 4096     // frames that wait for the trace's reader,
	traceBytes = 16 << 20 // and their bytes
	traceRate  = 20_000   // frames a second that each worker traces
	traceBurst = 2000
)

// ErrTooManyTraces says that maxTraces run already.
var ErrTooManyTraces = errors.New("too many traces run at once")

// TraceFilter says which frames a trace takes: those that meet every condition. The zero value of a condition is none, but
// for Port.
type TraceFilter struct {
	// Client is the address of the station that the connection is from, and of packets that belong to none an end. A
	// ClientPort of 0 is any.
	Client     packet.Addr
	ClientPort uint16
	// Service is the virtual service of the connection, or that the packet is addressed to. It need not exist.
	Service *service.Key
	// Server is the real server of the connection, or an end of the packet. A ServerPort of 0 is any.
	Server     packet.Addr
	ServerPort uint16
	// Port is the index of the port that the frame came in by; negative is any.
	Port int
	// Verdicts are those that are asked for; nil is all.
	Verdicts *VerdictSet
}

// VerdictSet is a set of verdicts.
type VerdictSet [numVerdicts]bool

// Add adds the verdict of that name, or all of a class: "forwarded", "answered", "passed" or "dropped". It returns false if
// there is none.
func (s *VerdictSet) Add(name string) (ok bool) {
	if name == "" {
		return false
	}
	for v := range numVerdicts {
		class := "forwarded"
		switch {
		case v == verdictNone:
			class = ""
		case v.Dropped():
			class = "dropped"
		case v.Passed():
			class = "passed"
		case v.Answered():
			class = "answered"
		}
		if name == class || name == v.String() {
			s[v], ok = true, true
		}
	}
	return ok
}

// Traced is a frame that came in, and what became of it. Several traces may share one: it is read only.
type Traced struct {
	// At is when its batch was taken, on CLOCK_BOOTTIME in nanoseconds.
	At int64
	// Verdict is how the frame ended; of a fragment whose datagram isn't whole yet it reads "waiting".
	Verdict Verdict
	// Waited says that it was held for its next hop before.
	Waited bool
	// Connected says that the frame belongs to connection Conn, and Opened that it opened it.
	Connected, Opened bool
	Conn              conntrack.Conn
	// In is the frame as it was received, Out what was sent of it or in answer to it.
	In  TracedFrame
	Out []TracedFrame

	flow   packet.Flow // of In, the zero Flow if it has none
	table  *service.Table
	sizeOf int // bytes that it counts for in a trace's queue
}

// TracedFrame is an Ethernet frame.
type TracedFrame struct {
	// Port is the index of the port that it came in or went out by.
	Port int
	// Bytes is the frame, with the VLAN tag that the kernel takes out and without virtio-net header.
	Bytes []byte
	// SegmentSize is the payload of the segments that a super-frame stands for, in bytes; 0 of other frames.
	SegmentSize int
}

// Trace is a stream of frames for one reader. What it is too slow for is counted and not kept.
type Trace struct {
	plane  *Plane
	filter TraceFilter
	events chan *Traced
	bytes  atomic.Int64 // of what is in events
	missed atomic.Uint64
}

// Trace begins a trace: frames that are received from now on are in it if they meet the filter. It must be closed.
func (p *Plane) Trace(f TraceFilter) (*Trace, error) {
	t := &Trace{plane: p, filter: f, events: make(chan *Traced, traceQueue)}
	for {
		old := p.traces.Load()
		var list []*Trace
		if old != nil {
			list = slices.Clone(*old)
		}
		if len(list) >= maxTraces {
			return nil, ErrTooManyTraces
		}
		list = append(list, t)
		if p.traces.CompareAndSwap(old, &list) {
			return t, nil
		}
	}
}

// Close ends the trace.
func (t *Trace) Close() {
	for {
		old := t.plane.traces.Load()
		list := slices.DeleteFunc(slices.Clone(*old), func(other *Trace) bool { return other == t })
		next := &list
		if len(list) == 0 {
			next = nil
		}
		if t.plane.traces.CompareAndSwap(old, next) {
			return
		}
	}
}

// Events are the traced frames. Call Took for each.
func (t *Trace) Events() <-chan *Traced { return t.events }

// Took makes room for others when an event was taken from Events.
func (t *Trace) Took(e *Traced) { t.bytes.Add(-int64(e.sizeOf)) }

// Missed counts the frames that the trace should have had and that were too many.
func (t *Trace) Missed() uint64 { return t.missed.Load() }

// offer queues an event unless the trace's reader is too slow.
func (t *Trace) offer(e *Traced) {
	if t.bytes.Add(int64(e.sizeOf)) > traceBytes {
		t.bytes.Add(-int64(e.sizeOf))
		t.missed.Add(1)
		return
	}
	select {
	case t.events <- e:
	default:
		t.bytes.Add(-int64(e.sizeOf))
		t.missed.Add(1)
	}
}

// takes says that the event meets the filter.
func (f *TraceFilter) takes(e *Traced) bool {
	switch {
	case f.Port >= 0 && e.In.Port != f.Port,
		f.Verdicts != nil && !f.Verdicts[e.Verdict],
		!f.Client.IsZero() && !f.ofClient(e),
		!f.Server.IsZero() && !f.ofServer(e),
		f.Service != nil && !f.ofService(e):
		return false
	}
	return true
}

func (f *TraceFilter) ofClient(e *Traced) bool {
	if e.Connected {
		return f.Client == e.Conn.Client && (f.ClientPort == 0 || f.ClientPort == e.Conn.ClientPort)
	}
	return anEnd(&e.flow, f.Client, f.ClientPort)
}

func (f *TraceFilter) ofServer(e *Traced) bool {
	if e.Connected && f.Server == e.Conn.Server {
		return f.ServerPort == 0 || f.ServerPort == e.Conn.ServerPort
	}
	return anEnd(&e.flow, f.Server, f.ServerPort)
}

// anEnd says that the flow is from or to an address, and a port if that isn't 0.
func anEnd(f *packet.Flow, a packet.Addr, port uint16) bool {
	return f.Src == a && (port == 0 || f.SrcPort == port) || f.Dst == a && (port == 0 || f.DstPort == port)
}

func (f *TraceFilter) ofService(e *Traced) bool {
	k := f.Service
	if e.Connected {
		if vs := e.table.Service(*k); vs != nil && vs.Index == e.Conn.Service {
			return true
		}
		// The service may be gone while its connections live, or not be there yet.
		return k.Mark == 0 && e.Conn.Proto == k.Proto && isService(k, e.Conn.Virtual, e.Conn.VirtualPort)
	}
	if k.Mark != 0 {
		return e.table.Mark(&e.flow, e.In.Port) == k.Mark && e.flow.Dst.Is4() == k.Addr.Addr().Is4()
	}
	if e.flow.Proto == packet.ProtoICMP || e.flow.Proto == packet.ProtoICMPv6 { // asks for no port
		a := packet.AddrFrom(k.Addr.Addr())
		return e.flow.Src == a || e.flow.Dst == a
	}
	return service.Proto(e.flow.Proto) == k.Proto &&
		(isService(k, e.flow.Dst, e.flow.DstPort) || isService(k, e.flow.Src, e.flow.SrcPort))
}

func isService(k *service.Key, a packet.Addr, port uint16) bool {
	return a == packet.AddrFrom(k.Addr.Addr()) && (port == k.Addr.Port() || k.Addr.Port() == 0)
}
