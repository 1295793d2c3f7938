package dataplane

import (
	"context"
	"time"

	"uvs/conntrack"
	"uvs/dataplane/nexthop"
	"uvs/forward"
	"uvs/packet"
	"uvs/service"
)

// A probe is a packet of our own that goes to one chosen real server by the code that forwards clients' packets, and whose
// answer is taken out of the packet path, wherever it comes in:
//
//	Plane.Probe --> probes.open ---> slow path: path.deliver --> wire
//	      ^                                                        |
//	      +------ probe.answers <--- path.probed (any worker) <----+
//
// It meets no scheduler, makes no connection and is counted nowhere; what answers it is counted as AnsweredProbe. For the
// worker it costs one load of a word per batch, and while probes are out a look into a bitmap by each packet's ports.

// ProbeKind is what a probe asks.
type ProbeKind uint8

// The kinds.
const (
	ProbeConnect  ProbeKind = iota // a SYN, whose SYN+ACK is answered by a reset: the server's program never comes to know
	ProbeEcho                      // an ICMP echo request
	ProbeDatagram                  // a UDP datagram without payload
)

// Probe says what is sent, where and how.
type Probe struct {
	Kind ProbeKind
	// From is the source: an address that uvs owns and whose answers come back to it, such as one of Config.ProbeAddrs.
	From packet.Addr
	// To and Port are what a client would address: the virtual service. Echo requests have no port.
	To   packet.Addr
	Port uint16
	// Server and ServerPort are the real server's, Method the way to it: DR, TUN or NAT. RS is its slot in the table's
	// ServerIndex, or service.NoServer: then TUN is IP-in-IP.
	Server     packet.Addr
	ServerPort uint16
	Method     service.Method
	RS         uint32
	// Len is the length of the IP packet in bytes, of an echo request; 0 is the shortest. Uncut forbids to fragment it.
	Len   int
	Uncut bool
	// FromHost says that From is the host's own: answers come to the MAC address of the host, too.
	FromHost bool
	// Tries is how often it is sent, Interval how long each waits for its answer. 0 means 3, and 500 ms.
	Tries    int
	Interval time.Duration
}

// Direct is a probe of an address itself, by the director's route to it.
func Direct(kind ProbeKind, from, to packet.Addr, port uint16) Probe {
	return Probe{Kind: kind, From: from, To: to, Port: port, Server: to, ServerPort: port, Method: service.Route, RS: service.NoServer}
}

// ProbeOutcome is what became of a probe.
type ProbeOutcome uint8

// The outcomes.
const (
	ProbeSilent   ProbeOutcome = iota // nothing came back
	ProbeNoWay                        // it could not be sent: see ProbeResult.Way and Verdict
	ProbeAccepted                     // SYN+ACK
	ProbeRefused                      // a reset
	ProbeEchoed                       // echo reply
	ProbeReplied                      // a UDP datagram
	ProbeError                        // an ICMP error: Type, Code, MTU
	ProbeReturned                     // the probe itself came back: the server forwarded it
	ProbeAstray                       // its answer was sent to the host's own MAC address
)

// ProbeAnswer is what came back first.
type ProbeAnswer struct {
	Outcome ProbeOutcome
	// From is the answer's source: of an ICMP error the station that sent it.
	From packet.Addr
	// Station is the MAC address that the frame came from, Port the one that it came in by.
	Station packet.MAC
	Port    int
	// Type and Code are the ICMP error's, MTU what it says if it is about the length.
	Type, Code uint8
	MTU        int

	ack uint32 // of ProbeAccepted: the sequence number that a reset must have
}

// ProbeResult is an answer and how the probe went.
type ProbeResult struct {
	ProbeAnswer
	// Way is what is known of the way to the server, Hop the way if it is nexthop.Ready.
	Way nexthop.Status
	Hop *nexthop.Hop
	// Verdict is how the packet path sent the probe.
	Verdict Verdict
	// Took is the time from the last sending to the answer.
	Took time.Duration
}

// Final says that no better answer is to be waited for.
func (o ProbeOutcome) Final() bool { return o >= ProbeAccepted && o <= ProbeError }

const (
	probeTries    = 3
	probeInterval = 500 * time.Millisecond
	probeResolve  = 50 * time.Millisecond // between two looks at a next hop that is being resolved
	probeQueue    = 64
)

// probe is one of them.
type probe struct {
	query   forward.Query
	conn    conntrack.Conn
	answers chan ProbeAnswer // nil if passage isn't
	passage *Passage         // whose packets these are, if it isn't a lone probe
}

// injection is a packet on its way to the slow path, which sends it.
type injection struct {
	probe *probe
	flags uint8  // of a segment other than the probe itself
	seq   uint32 // likewise
	sent  chan ProbeResult
}

// Probe sends a probe and waits for what comes back. It returns at the latest when Tries times Interval have passed, or the
// next hop didn't resolve for as long, or ctx ended. It may be called by many goroutines; Run must be running.
func (p *Plane) Probe(ctx context.Context, pr *Probe) ProbeResult {
	tries, interval := pr.Tries, pr.Interval
	if tries <= 0 {
		tries = probeTries
	}
	if interval <= 0 {
		interval = probeInterval
	}
	b := newProbe(pr)
	b.answers = make(chan ProbeAnswer, 4)
	if !p.probes.open(b) {
		return ProbeResult{ProbeAnswer: ProbeAnswer{Outcome: ProbeNoWay}}
	}
	defer p.probes.close(b)
	last := ProbeResult{ProbeAnswer: ProbeAnswer{Outcome: ProbeNoWay}}
	end := time.NewTimer(time.Duration(tries) * interval)
	defer end.Stop()
	for try := 0; try < tries; {
		r, ok := p.inject(ctx, &injection{probe: b, flags: packet.TCPSyn, seq: b.query.Seq, sent: make(chan ProbeResult, 1)})
		if !ok {
			return last
		}
		wait := interval
		if r.Hop == nil {
			wait = probeResolve
			if r.Way != nexthop.Pending {
				wait = interval // it may come back
				try++
			}
		} else {
			try++
		}
		r.Outcome = ProbeNoWay
		if sentOn(r.Verdict) {
			r.Outcome = ProbeSilent
		}
		if last.Outcome < ProbeReturned {
			last = r
		}
		if !p.awaitAnswer(ctx, b, wait, end, &last) {
			break
		}
	}
	return last
}

// PathMTU is the longest packet that is known to reach an address by a way that carries mtu: less if a router said so about
// what went there through a tunnel.
func (p *Plane) PathMTU(to packet.Addr, mtu int) int { return p.mtus.limit(to, mtu, BootTime()) }

// sentOn says that a verdict of path.deliver means that the packet left.
func sentOn(v Verdict) bool { return v == ForwardedDR || v == ForwardedNAT || v == ForwardedTUN }

// awaitAnswer waits for an answer, and is false if the probe is over.
func (p *Plane) awaitAnswer(ctx context.Context, b *probe, wait time.Duration, end *time.Timer, last *ProbeResult) bool {
	began := time.Now()
	next := time.NewTimer(wait)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return false
		case <-next.C:
			return true
		case a := <-b.answers:
			last.ProbeAnswer, last.Took = a, time.Since(began)
			if a.Outcome == ProbeAccepted { // the server forgets it, as if the client had thought better of it
				p.inject(ctx, &injection{probe: b, flags: packet.TCPRst, seq: a.ack, sent: make(chan ProbeResult, 1)})
			}
			if a.Outcome.Final() {
				return false
			}
		}
	}
}

// inject has the slow path send a packet, and is false if ctx ended before.
func (p *Plane) inject(ctx context.Context, in *injection) (ProbeResult, bool) {
	select {
	case p.slow.injections <- in:
	case <-ctx.Done():
		return ProbeResult{}, false
	}
	select {
	case r := <-in.sent:
		return r, true
	case <-ctx.Done():
		return ProbeResult{}, false
	}
}

// tell hands an answer to whoever waits for it.
func (b *probe) tell(a ProbeAnswer) {
	if g := b.passage; g != nil {
		g.plane.arrivals.failed(g, a)
		return
	}
	select {
	case b.answers <- a:
	default: // it has answers enough
	}
}
