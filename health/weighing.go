package health

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"
)

// Weighing is what the kinds of checks have that change weights: how what a server asks for becomes the share of its configured
// weight that it gets. The weight is always configured times share, so that nothing accumulates.
//
// What is asked for is averaged over time, and the share follows the average in limited steps and only when it is off by more
// than a dead band. Without that, all directors and connections would turn to the server that said last that it was idle, and
// away from it together when it says that it isn't. Only 0, no new connections, holds at once, and so does what follows it.
type Weighing struct {
	// Least is the least share of its weight that a server gets for being busy, in percent; default 5.
	Least int `json:"least,omitempty"`
	// Most is the most, in percent; default 100, and at most 1000.
	Most int `json:"most,omitempty"`
	// Smooth is the time over which what the server asks for is averaged; default 10s.
	Smooth Duration `json:"smooth,omitempty"`
	// Step is by how much of itself the share changes at most with one check, in percent; default 20.
	Step int `json:"step,omitempty"`
	// DeadBand is how much of itself the share may be off, in percent, before it changes; default 10.
	DeadBand int `json:"deadband,omitempty"`

	mu    sync.Mutex
	given map[netip.AddrPort]damped // by the target's server; guarded by mu
}

const (
	defaultLeast    = 5
	defaultSmooth   = 10 * time.Second
	defaultStep     = 20
	defaultDeadBand = 10
	maxShare        = 1000
	maxWeighed      = 1 << 16 // servers remembered; there may not be more of them, but addresses come and go
)

func (w *Weighing) prepareWeighing() error {
	orDefault := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orDefault(&w.Least, defaultLeast)
	orDefault(&w.Most, 100)
	orDefault(&w.Step, defaultStep)
	orDefault(&w.DeadBand, defaultDeadBand)
	if w.Smooth == 0 {
		w.Smooth = Duration(defaultSmooth)
	}
	switch {
	case w.Most < 1 || w.Most > maxShare:
		return fmt.Errorf("most: %d: it is from 1 to %d percent", w.Most, maxShare)
	case w.Least < 1 || w.Least > w.Most:
		return fmt.Errorf("least: %d: it is from 1 percent to most (%d)", w.Least, w.Most)
	case w.Smooth < 0 || time.Duration(w.Smooth) > time.Hour:
		return fmt.Errorf("smooth: %v: it is from 0s to 1h", w.Smooth)
	case w.Step < 1 || w.Step > 1000:
		return fmt.Errorf("step: %d: it is from 1 to 1000 percent", w.Step)
	case w.DeadBand < 1 || w.DeadBand > 100:
		return fmt.Errorf("deadband: %d: it is from 1 to 100 percent", w.DeadBand)
	}
	return nil
}

// damped is what a server's share depends on. The zero value is a server that has asked for nothing yet.
type damped struct {
	at    time.Time // of the last one asked for
	mean  float64   // of what was asked for
	share float64   // that is given
}

// after is the state when a server asks for a share at a time: the whole of Weighing's rule.
func (w *Weighing) after(was damped, asked float64, now time.Time) damped {
	if !(asked > 0) {
		return damped{at: now}
	}
	asked = min(max(asked, float64(w.Least)/100), float64(w.Most)/100)
	if was.share == 0 { // the first, or it took no connections
		return damped{at: now, mean: asked, share: asked}
	}
	d := damped{at: now, mean: asked, share: was.share}
	if since := now.Sub(was.at); w.Smooth > 0 {
		part := 1 - math.Exp(-float64(max(since, 0))/float64(w.Smooth))
		d.mean = was.mean + part*(asked-was.mean)
	}
	if off := math.Abs(d.mean - d.share); off > float64(w.DeadBand)/100*d.share {
		step := 1 + float64(w.Step)/100
		d.share = min(max(d.mean, d.share/step), d.share*step)
	}
	return d
}

// weigh gives the target the share that follows from what it asks for, and returns it.
func (w *Weighing) weigh(to *Target, asked float64) float64 {
	w.mu.Lock()
	d := w.after(w.given[to.Server], asked, time.Now())
	if w.given == nil || len(w.given) >= maxWeighed {
		w.given = map[netip.AddrPort]damped{}
	}
	w.given[to.Server] = d
	w.mu.Unlock()
	to.weigh(d.share)
	return d.share
}

// weighAsBefore gives the target the share that it had, if it ever had one, which known says.
func (w *Weighing) weighAsBefore(to *Target) (share float64, known bool) {
	w.mu.Lock()
	d, known := w.given[to.Server]
	w.mu.Unlock()
	if known {
		to.weigh(d.share)
	}
	return d.share, known
}

func (t *Target) weigh(share float64) {
	if t.Weigh != nil {
		t.Weigh(share)
	}
}

// percent is a share as messages show it.
func percent(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }
