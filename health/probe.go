package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"
)

// State is what is known of a server, by one check or by all.
type State uint8

// The states.
const (
	Unknown State = iota // no probe has ended yet
	Up
	Down
)

// String is the state's name.
func (s State) String() string { return [...]string{"unknown", "up", "down"}[s] }

// Result is what came of one probe.
type Result struct {
	// Time is when the probe ended, and Took how long it took.
	Time time.Time
	Took time.Duration
	// OK says that the server can serve.
	OK bool
	// Text is what the server said, or why it can't serve.
	Text string
	// Unable says that the probe couldn't be made for want of something here, such as file descriptors: it says nothing about
	// the server and changes no state.
	Unable bool
	// Factor is what share of its configured weight the server asks for: 1 unless its check says otherwise.
	Factor float64
}

// Change is a change of state.
type Change struct {
	Time time.Time
	To   State
	// Why is the Text of the probe that decided.
	Why string
}

const (
	keptChanges = 10                     // of each check
	hurry       = 20 * time.Millisecond  // between probes of a suspect
	hurried     = 100 * time.Millisecond // what a probe of a suspect may take at least, and four times what one took lately
	calm        = 200 * time.Millisecond // after a suspect was cleared it isn't asked at once again
)

// probe is a check as it is made: of one server by one way, for one or more subjects. All is guarded by Engine.mu, but for
// key, spec and route, which never change.
type probe struct {
	key      string
	spec     *Spec
	route    Route
	watchers map[*subject]struct{}
	due      time.Time
	place    int // in Engine.queue; -1: it is out
	began    time.Time
	cancel   context.CancelFunc // while it is out
	gone     bool

	state      State
	fresh      bool // state was inherited: the next result decides alone
	spread     bool // it was asked twice
	good, bad  int  // results in a row
	last       Result
	failed     Result // the last that failed
	changes    []Change
	took       time.Duration // of probes that succeeded, smoothed
	suspected  string        // why it is suspect; "": it isn't
	again      bool          // it was suspected while it was out
	clearedAt  time.Time     // when it last succeeded while suspect
	factor     float64
	everFactor bool
}

// inherit takes over what a check that this one replaces knew.
func (p *probe) inherit(old *probe) {
	if old == nil || old.state == Unknown || old == p {
		return
	}
	p.state, p.fresh, p.last, p.took, p.changes = old.state, true, old.last, old.took, old.changes
	p.factor, p.everFactor = old.factor, old.everFactor
}

// timeout is how long the probe that begins now may take.
func (p *probe) timeout(time.Time) time.Duration {
	t := time.Duration(p.spec.Timeout)
	if p.suspected != "" {
		t = min(t, max(hurried, 4*p.took))
	}
	return t
}

// suspect notes a suspicion and says whether the server is to be asked now.
func (p *probe) suspect(now time.Time, why string) bool {
	if !p.spec.InBand || p.state != Up || p.suspected != "" || now.Sub(p.clearedAt) < calm {
		return false
	}
	p.suspected = why
	p.good = 0
	if p.bad == 0 {
		p.bad = min(1, p.spec.Fall-1)
	}
	p.again = p.place < 0
	return true
}

// observe takes a result, and says whether that changes how the server stands.
func (p *probe) observe(r Result) (changed bool) {
	p.last = r
	if r.Unable {
		return false
	}
	before, factor := p.state, p.weightFactor()
	if r.OK {
		p.good, p.bad = p.good+1, 0
		p.factor, p.everFactor = r.Factor, true
		if p.took == 0 {
			p.took = r.Took
		}
		p.took += (r.Took - p.took) / 4
		if p.suspected != "" && !p.again {
			p.suspected, p.clearedAt = "", r.Time
		}
	} else {
		p.bad, p.good = p.bad+1, 0
		p.failed = r
	}
	decides := p.state == Unknown || p.fresh
	switch {
	case r.OK && p.state != Up && (decides || p.good >= p.spec.Rise):
		p.state = Up
	case !r.OK && p.state != Down && (decides || p.bad >= p.spec.Fall):
		p.state, p.suspected = Down, ""
	}
	p.fresh = false
	if p.state != before {
		if len(p.changes) == keptChanges {
			p.changes = append(p.changes[:0:0], p.changes[1:]...)
		}
		p.changes = append(p.changes, Change{Time: r.Time, To: p.state, Why: r.Text})
	}
	return p.state != before || p.weightFactor() != factor
}

// weightFactor is the share of its weight that the server asked for last.
func (p *probe) weightFactor() float64 {
	if !p.everFactor {
		return 1
	}
	return p.factor
}

// next is when the server is to be asked again after a probe that ended now.
func (p *probe) next(now time.Time) time.Time {
	if p.again {
		p.again = false
		return now
	}
	wait := time.Duration(p.spec.Interval)
	switch unsettled := p.state == Up && p.bad > 0 || p.state == Down && p.good > 0; {
	case p.last.Unable: // hurry would only make it worse
	case p.suspected != "":
		wait = hurry
	case unsettled:
		wait = time.Duration(p.spec.Retry)
	}
	percent := p.spec.Jitter
	if !p.spread && percent > 0 {
		percent = 100 // the second probe comes at any time, so that those that began together are spread from then on
	}
	p.spread = true
	due := p.began.Add(shorten(wait, percent))
	if due.Before(now) {
		return now
	}
	return due
}

// exchange makes one probe.
func (e *Engine) exchange(ctx context.Context, spec *Spec, r *Route, record func(sent bool, data []byte)) Result {
	began := time.Now()
	factor := 1.0
	t := &Target{
		Server: r.Server.Addr, Address: r.To, Protocol: r.Service.Proto, Record: record,
		Dial:  func(ctx context.Context, network string) (net.Conn, error) { return e.dial(ctx, network, r) },
		Weigh: func(f float64) { factor = f },
		Setup: func() time.Duration { return setupLatency(r.Server) },
	}
	if spec.Port != 0 {
		t.Server = withPort(t.Server, spec.Port)
	}
	said, err := ask(ctx, spec.Options, t)
	now := time.Now()
	out := Result{Time: now, Took: now.Sub(began), OK: err == nil, Text: said, Factor: factor}
	if err != nil {
		out.Text, out.Unable = explain(err, said), unable(err)
	}
	out.Text = clipped(out.Text)
	return out
}

// ask makes a probe. A fault of a kind of check, brought about by what a server sent, must not take the director with it.
func ask(ctx context.Context, p Prober, t *Target) (said string, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("the check itself failed, please report that: %v: %w", fault, ErrUnable)
		}
	}()
	return p.Probe(ctx, t)
}

// maxText is the longest text of a result, in bytes: it is kept for each change, and servers have a say in it.
const maxText = 300

func clipped(s string) string {
	if len(s) > maxText {
		s = s[:maxText-3] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

// unable says that an error is for want of something here.
func unable(err error) bool {
	for _, own := range []error{
		ErrUnable, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL, syscall.EAGAIN,
		syscall.ENETUNREACH,
	} {
		if errors.Is(err, own) {
			return true
		}
	}
	return false
}

// shorten takes up to percent of d away, at random.
func shorten(d time.Duration, percent int) time.Duration {
	return d - rand.N(d*time.Duration(percent)/100+1)
}
