package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Standing is how a real server stands by all its checks.
type Standing struct {
	// State is Down if one check says so, Up if all do, Unknown before.
	State State
	// Serves says whether the server counts as able to serve: what is Unknown does, unless a check's Start says otherwise.
	Serves bool
	// Why says why it doesn't serve, or what the first check heard: "http: status 503".
	Why string
	// Factor is the share of its weight that the server asks for, by all its checks multiplied.
	Factor float64
}

// Standing is how a server of a service stands now. One that isn't watched serves.
func (e *Engine) Standing(k Subject) Standing {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := Standing{State: Up, Serves: true, Factor: 1}
	s := e.subjects[k]
	if s == nil {
		st.State = Unknown
		return st
	}
	for i, p := range s.probes {
		if p.everFactor {
			st.Factor *= p.factor
		}
		switch {
		case p.state == Down:
			if st.State != Down {
				st.Why = s.specs[i].ID + ": " + p.failed.Text
			}
			st.State, st.Serves = Down, false
		case p.state == Unknown && st.State == Up:
			st.State = Unknown
		case st.Why == "" && p.state == Up:
			st.Why = s.specs[i].ID + ": " + p.last.Text
		}
		if p.state == Unknown && s.specs[i].Start == StartDown && st.Serves {
			st.Serves, st.Why = false, s.specs[i].ID+": not asked yet"
		}
	}
	return st
}

// Report is what is known by one check of one real server.
type Report struct {
	ID, Kind string
	State    State
	// Route is the way of its probes, and Shared how many other servers of services the same probe is for.
	Route  Route
	Shared int
	// Last is the last probe's result; its Time is zero before the first has ended.
	Last Result
	// InRow is how many results in a row were like the last one.
	InRow int
	// Factor is the share of its weight that the server asked for by this check, Factored whether it asked at all.
	Factor   float64
	Factored bool
	// Suspected says why packets made the server suspect; "": they didn't.
	Suspected string
	// Changes are the last changes of state, the latest last.
	Changes []Change
}

// Reports says what is known of a server of a service by each of its checks, in their order.
func (e *Engine) Reports(k Subject) []Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.subjects[k]
	if s == nil {
		return nil
	}
	list := make([]Report, len(s.probes))
	for i, p := range s.probes {
		list[i] = Report{
			ID: s.specs[i].ID, Kind: s.specs[i].Kind, State: p.state, Route: p.route, Shared: len(p.watchers) - 1, Last: p.last,
			InRow: max(p.good, p.bad), Factor: p.weightFactor(), Factored: p.everFactor && p.factor != 1, Suspected: p.suspected, Changes: slices.Clone(p.changes),
		}
	}
	return list
}

// Test makes one probe now, whatever is watched, and tells record of every piece of the exchange.
func (e *Engine) Test(ctx context.Context, r *Route, spec *Spec, record func(sent bool, data []byte)) Result {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(spec.Timeout))
	defer cancel()
	return e.exchange(ctx, spec, r, record)
}

// Stats is what an Engine did.
type Stats struct {
	// Probes counts those that began, Out those that haven't ended yet.
	Probes uint64
	Out    int
	// Late[i] counts the probes that began less than 2^i ms after they were due, and not less than half of that.
	Late [12]uint64
}

func (s *Stats) begin(late time.Duration) {
	s.Probes++
	s.Out++
	i := 0
	for i < len(s.Late)-1 && late >= time.Millisecond<<i {
		i++
	}
	s.Late[i]++
}

func (s *Stats) end() { s.Out-- }

// Stats is what it did so far.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

// ErrUnable is wrapped by the error of a probe that couldn't be made for want of something here: no memory, no process. It
// says nothing about the server.
var ErrUnable = errors.New("the probe can't be made here")

// dial opens a connection for a probe.
func (e *Engine) dial(ctx context.Context, network string, r *Route) (net.Conn, error) {
	if r.To.Port() == 0 {
		return nil, fmt.Errorf("the server has no port of its own to be asked: port= says which: %w", ErrUnable)
	}
	if e.cfg.Dial != nil {
		return e.cfg.Dial(ctx, network, r)
	}
	return DialDirect(ctx, network, r.To)
}

// DialDirect opens a connection by the host's own stack. A TCP connection that is closed without more ado is reset, which
// leaves neither end with a connection in TIME_WAIT for each probe.
func DialDirect(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, network, to.String())
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		err = tcp.SetLinger(0)
	}
	return c, err
}

func withPort(a netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), port)
}

// explain says in a few words why a probe failed. What Go's net tells of addresses is known from the check.
func explain(err error, said string) string {
	text := err.Error()
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		text = strings.Replace(text, op.Error(), reason(op.Err), 1)
	} else if text == context.DeadlineExceeded.Error() || text == os.ErrDeadlineExceeded.Error() {
		text = silence
	}
	if said != "" {
		text = fmt.Sprintf("%s (%s)", text, said)
	}
	return text
}

// silence is why a probe failed that ran out of time.
const silence = "no answer in time"

func reason(err error) string {
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return silence
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
