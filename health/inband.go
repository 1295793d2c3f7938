package health

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"uvs/service"
)

// In-band detection looks at what clients' packets tell of real servers. It finds one that died long before its next check is
// due, but clients can bring all of these signs about: a server is made suspect, and asked, never taken out. Only
// differences between a server's usual behaviour and its present one count, so that neither clients that are far away nor
// rare ones look like a dead server.

// What makes a server suspect.
const (
	// watchTick is how often the counts are looked at.
	watchTick = 25 * time.Millisecond
	// restTick is how often it is asked whether they are to be looked at, while they aren't.
	restTick = time.Second
	// leastSilence is how long a server must have been silent to clients that wait for it, at least.
	leastSilence = 3 * watchTick
	// leastWaiting are the clients that must wait, and missedAnswers those answers that should have come in the silence,
	// going by the last second: by chance alone so many fail to come once in 3,000 times.
	leastWaiting  = 3
	missedAnswers = 8
	// repeatedSYNs suffice without any expectation: clients have waited for a second.
	repeatedSYNs = 2
	// refusals are resets in answer to SYNs, with no answer beside them.
	refusals = 2
	// stalledPackets are the packets of clients, and the answers missing, in the silence of a server whose answers pass the
	// director.
	stalledPackets = 20
	stalledSilence = 8 * watchTick
	// usualSilence is how much longer than one that it has come out of lately a silence must be, in percent.
	usualSilence = 150
	// horizon is over how long rates are averaged, forgetting is how long silences that turned out harmless are remembered.
	horizon    = time.Second
	forgetting = 30 * time.Second
	// firstPause is how long a suspect isn't suspected again. It doubles each time up to longestPause, and starts again when
	// there were no signs for that long.
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// InBandConfig is what an InBand looks at and whom it tells. All are required.
type InBandConfig struct {
	// Table is the present configuration.
	Table func() *service.Table
	// AddSymptoms and AddCounters add up what was counted since the start, by RealServer.Index.
	AddSymptoms func([]service.Symptoms)
	AddCounters func(services, servers []service.Counters)
	// Wanted says whether anybody would be suspected: while not, the counts aren't looked at.
	Wanted func() bool
	// Suspect is told what makes a server suspicious, in a few words. It must not block for long.
	Suspect func(k service.Key, server netip.AddrPort, why string)
}

// InBand watches for signs of dead real servers in the counts of the packet path.
type InBand struct {
	cfg      InBandConfig
	symptoms []service.Symptoms // as read last, and before
	counters []service.Counters
	before   []service.Symptoms
	earlier  []service.Counters
	patients []patient // by RealServer.Index
	began    time.Time // when its clock stood at an hour: no time is 0
	last     time.Duration
}

// patient is what is known of one server.
type patient struct {
	server   *service.RealServer
	opening  lull   // of clients that open connections
	stalling lull   // of a server whose answers pass the director, to all packets
	repeated uint32 // SYNs in opening's silence
	until    time.Duration
	pause    time.Duration
	seen     time.Duration // in its service, last
}

// tick is one look: when, on InBand's own clock, and what has passed since the last one.
type tick struct {
	now, passed time.Duration
	perSecond   float64 // what counts are multiplied by for a rate
	share       float64 // of horizon
}

// lull is the time since anything answered what was asked.
type lull struct {
	since   time.Duration // when the first question since the last answer was asked; 0: none waits
	waiting uint64        // questions since then
	rate    float64       // of what is expected to be answered, a second
	usual   time.Duration // the longest silence of late that ended by itself
	forget  time.Duration // when that is forgotten
}

// NewInBand returns one that has seen nothing yet.
func NewInBand(cfg InBandConfig) *InBand { return &InBand{cfg: cfg} }

// Run watches until ctx ends, then returns nil. With very many servers it looks less often, so that it takes no more than a
// twentieth of a processor.
func (w *InBand) Run(ctx context.Context) error {
	timer := time.NewTimer(watchTick)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if !w.cfg.Wanted() {
			timer.Reset(restTick)
			continue
		}
		began := time.Now()
		w.look(began)
		timer.Reset(max(watchTick, 20*time.Since(began)))
	}
}

// look reads the counts, and tells of servers that have become suspicious.
func (w *InBand) look(now time.Time) {
	t := w.cfg.Table()
	w.symptoms, w.before = renew(w.before, t.ServerSlots), w.symptoms
	w.counters, w.earlier = renew(w.earlier, t.ServerSlots), w.counters
	w.cfg.AddSymptoms(w.symptoms)
	w.cfg.AddCounters(nil, w.counters)
	if len(w.patients) < t.ServerSlots {
		w.patients = append(w.patients, make([]patient, t.ServerSlots-len(w.patients))...)
	}
	if w.began.IsZero() {
		w.began = now
	}
	k := tick{now: now.Sub(w.began) + time.Hour}
	before := w.last
	k.passed, w.last = k.now-before, k.now
	if before == 0 || k.passed <= 0 {
		return
	}
	k.perSecond, k.share = 1/k.passed.Seconds(), min(float64(k.passed)/float64(horizon), 1)
	for _, vs := range t.Services {
		for _, rs := range vs.Servers {
			i := int(rs.Index)
			if i >= len(w.before) {
				continue // it has no past
			}
			p := &w.patients[i]
			if p.server != rs {
				*p = patient{server: rs, seen: k.now}
				continue
			}
			if p.seen != before { // it was out of its service, and is back
				p.opening.since, p.opening.waiting = 0, 0
				p.stalling.since, p.stalling.waiting = 0, 0
			}
			p.seen = k.now
			c, e := &w.counters[i], &w.earlier[i]
			if w.symptoms[i] == w.before[i] && c.InPkts == e.InPkts && p.idle() {
				continue
			}
			if why := p.look(&k, w.symptoms[i].Since(w.before[i]), c.InPkts-e.InPkts, c.OutPkts-e.OutPkts); why != "" {
				w.cfg.Suspect(vs.Key, rs.Addr, why)
			}
		}
	}
}

// renew is s with n zero elements.
func renew[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// idle says that nothing is expected of the server, and nothing remembered.
func (p *patient) idle() bool {
	return p.opening.since == 0 && p.stalling.since == 0 && p.opening.rate == 0 && p.stalling.rate == 0
}

// look takes what was counted since the last one, and returns why the server is suspicious, "" if it isn't or was
// said to be not long ago.
func (p *patient) look(k *tick, s service.Symptoms, in, out uint64) string {
	if s.Answered > 0 {
		p.repeated = 0
	}
	p.repeated += s.Repeated
	p.opening.hear(k, uint64(s.Opened), uint64(s.Opened), uint64(s.Answered))
	p.stalling.hear(k, in, out, out)
	why := ""
	switch {
	case s.Unreachable > 0 && s.Answered == 0:
		why = "packets to it are answered by ICMP unreachable, or its next hop is gone"
	case s.Refused >= refusals && s.Answered == 0:
		why = "it resets new connections"
	case p.repeated >= repeatedSYNs && p.opening.waiting+uint64(p.repeated) >= leastWaiting:
		why = fmt.Sprintf("%d SYNs were repeated and nothing answered", p.repeated)
	case p.opening.exceeds(k.now, leastSilence, leastWaiting, missedAnswers):
		why = fmt.Sprintf("%d new connections have had no answer for %v", p.opening.waiting, p.opening.lasts(k.now).Round(time.Millisecond))
	case p.stalling.exceeds(k.now, stalledSilence, stalledPackets, stalledPackets):
		why = fmt.Sprintf("%d packets have had no answer for %v", p.stalling.waiting, p.stalling.lasts(k.now).Round(time.Millisecond))
	}
	if why == "" || k.now < p.until {
		return ""
	}
	if p.pause == 0 || k.now-p.until > longestPause {
		p.pause = firstPause
	} else {
		p.pause = min(2*p.pause, longestPause)
	}
	p.until = k.now + p.pause
	return why
}

// hear takes what was asked in the time that passed, how much of it, or of answers, is to be expected, and what was answered.
func (s *lull) hear(k *tick, asked, expected, answered uint64) {
	if answered > 0 && s.since != 0 {
		s.learn(k.now)
	}
	if s.rate += (float64(expected)*k.perSecond - s.rate) * k.share; s.rate < 0.01 {
		s.rate = 0
	}
	if answered > 0 {
		s.since, s.waiting = 0, 0
		return // what was asked since then may have its answer among these, or in the next
	}
	if asked == 0 {
		return
	}
	if s.since == 0 {
		s.since = k.now - k.passed/2
	}
	s.waiting += asked
}

// learn remembers a silence that ends by itself, though an answer was to be expected.
func (s *lull) learn(now time.Duration) {
	lasted := s.lasts(now)
	switch {
	case s.waiting < leastWaiting || s.rate*lasted.Seconds() < leastWaiting:
	case lasted > s.usual || now > s.forget:
		s.usual, s.forget = lasted, now+forgetting
	case 4*lasted >= 3*s.usual:
		s.forget = now + forgetting // it is usual still
	}
}

// lasts is how long it has been.
func (s *lull) lasts(now time.Duration) time.Duration {
	if s.since == 0 {
		return 0
	}
	return now - s.since
}

// exceeds says that the silence is no longer what may be expected.
func (s *lull) exceeds(now, least time.Duration, waiting uint64, missed float64) bool {
	if s.waiting < waiting {
		return false
	}
	if now <= s.forget {
		least = max(least, s.usual*usualSilence/100)
	}
	lasts := s.lasts(now)
	return lasts >= least && s.rate*lasts.Seconds() >= missed
}
