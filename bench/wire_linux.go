package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"uvs/bench/progress"
)

// Wire measures subjects side by side in the lab. Zero fields take the defaults named.
type Wire struct {
	Subjects []string      // default all whose programs are there
	Works    []string      // default all
	Rounds   int           // default 5
	Time     time.Duration // of each measured stretch; default 2 s
	Rate     float64       // of the generator in frames a second; default as fast as it goes
	Requests float64       // a second, where they are offered at a fixed rate; default 500
	Conns    int           // that memory is measured with; default 7,000, as files are limited to 20,000 in places
	Link     string        // uvsd's and the bare forwarder's --link; default auto
	UVSDArgs []string      // further arguments of uvsd's
	Programs string        // where uvsd and uvsadm are
	Self     string        // this program, which is a forwarder when called with "forwarder"
	Bar      *progress.Bar // shows what is being measured; nil for nobody
	Trouble  io.Writer     // told at once what cannot be measured; nil for nobody

	room int     // connections that a proxy must have room for at the work at hand
	null float64 // what the generator takes for a frame that nobody receives, in this round
}

// Sample is what one round said about a subject at a work.
type Sample struct {
	Round   int
	Subject string
	Work    string
	Figures map[string]float64
	Error   string `json:",omitempty"`
}

// Nobody is the subject of the null receiver's samples.
const Nobody = "nobody"

// Names lists the subjects or works there are, each with a line about it.
func Names() (subjectLines, workLines []string) {
	for _, s := range subjects {
		subjectLines = append(subjectLines, fmt.Sprintf("%-14s %s", s.name, s.about))
	}
	for _, w := range works {
		workLines = append(workLines, fmt.Sprintf("%-14s %s", w.name, w.about))
	}
	return subjectLines, workLines
}

// Run measures. What fails is a sample that says so; an error is one that makes the rest pointless.
func (b *Wire) Run(ctx context.Context) (*Report, error) {
	b.fill()
	chosen, left, err := b.choose()
	if err != nil {
		return nil, err
	}
	all, done := 0, 0
	for _, pairs := range chosen {
		all += len(pairs) * b.Rounds
	}
	report := &Report{Machine: Machine(), Started: time.Now(), Rounds: b.Rounds, Seconds: b.Time.Seconds(), Left: left}
	for round := range b.Rounds {
		for _, w := range works {
			pairs := chosen[w.name]
			if len(pairs) == 0 {
				continue
			}
			if w.packets {
				sample := b.calibrate(ctx, round, &w)
				report.Samples = append(report.Samples, sample)
			}
			// Another order in each round, lest one always follow the same other.
			for i := range pairs {
				s := pairs[(i+round)%len(pairs)]
				if ctx.Err() != nil {
					return report, ctx.Err()
				}
				b.Bar.While(float64(done), float64(all), s.name+" at "+w.name, func() error {
					report.Samples = append(report.Samples, b.one(ctx, round, s, &w))
					return nil
				})
				done++
			}
		}
	}
	report.Took = time.Since(report.Started).Seconds()
	return report, nil
}

func (b *Wire) fill() {
	if b.Rounds <= 0 {
		b.Rounds = 5
	}
	if b.Time <= 0 {
		b.Time = 2 * time.Second
	}
	if b.Requests <= 0 {
		b.Requests = 500
	}
	if b.Conns <= 0 {
		b.Conns = 7000
	}
	if b.Link == "" {
		b.Link = "auto"
	}
	if b.Trouble == nil {
		b.Trouble = io.Discard
	}
}

// choose picks the subjects for each work; left says which cannot be measured here, and why.
func (b *Wire) choose() (chosen map[string][]*subject, left []string, err error) {
	for _, name := range b.Subjects {
		if !slices.ContainsFunc(subjects, func(s subject) bool { return s.name == name }) {
			return nil, nil, fmt.Errorf("no subject %q; the list has %s", name, known(subjects, func(s subject) string { return s.name }))
		}
	}
	for _, name := range b.Works {
		if !slices.ContainsFunc(works, func(w work) bool { return w.name == name }) {
			return nil, nil, fmt.Errorf("no work %q; the list has %s", name, known(works, func(w work) string { return w.name }))
		}
	}
	chosen, limit := map[string][]*subject{}, trackedLimit()
	for i := range works {
		w := &works[i]
		if len(b.Works) > 0 && !slices.Contains(b.Works, w.name) {
			continue
		}
		if !available(w.needs) {
			left = append(left, fmt.Sprintf("%s: %s is not installed", w.name, w.needs))
			continue
		}
		for j := range subjects {
			s := &subjects[j]
			switch {
			case len(b.Subjects) > 0 && !slices.Contains(b.Subjects, s.name), w.packets && !s.packets, !w.packets && !s.streams:
			case w.pair && !s.pair || w.process && s.noProcess:
			case !available(s.needs):
				left = append(left, fmt.Sprintf("%s at %s: %s is not installed", s.name, w.name, s.needs))
			case s.state && w.conns > limit:
				left = append(left, fmt.Sprintf("%s at %s: the machine's nf_conntrack_max is %d", s.name, w.name, limit))
			default:
				chosen[w.name] = append(chosen[w.name], s)
			}
		}
	}
	if len(chosen) == 0 {
		return nil, left, fmt.Errorf("nothing to measure: %s", strings.Join(append(left, "no such pair"), "; "))
	}
	return chosen, left, nil
}

// known lists names for an error.
func known[T any](all []T, name func(T) string) string {
	var names []string
	for _, x := range all {
		names = append(names, name(x))
	}
	return strings.Join(names, ", ")
}

// available says that a program is there; none is.
func available(program string) bool {
	_, err := exec.LookPath(program)
	return program == "" || err == nil
}

// overhead is what may pass beside the measured time of one sample before it is given up.
const overhead = 60 * time.Second

// one raises a site, starts the subject in it, and measures.
func (b *Wire) one(ctx context.Context, round int, s *subject, w *work) Sample {
	b.room = 0
	if w.holds {
		b.room = b.Conns + 300
	}
	return b.sample(ctx, Sample{Round: round, Subject: s.name, Work: w.name}, s.oneArmed, w.pair, func(ctx context.Context, site *site) (map[string]float64, error) {
		if w.packets {
			if err := site.sink(); err != nil {
				return nil, err
			}
		}
		r, err := s.start(ctx, b, site)
		if err != nil {
			return nil, err
		}
		return w.do(ctx, b, site, r)
	})
}

// calibrate measures the generator with a null receiver.
func (b *Wire) calibrate(ctx context.Context, round int, w *work) Sample {
	sample := b.sample(ctx, Sample{Round: round, Subject: Nobody, Work: w.name}, false, false, func(ctx context.Context, site *site) (map[string]float64, error) {
		return b.measurePackets(ctx, site, nil, min(w.flows, 1<<14))
	})
	b.null = sample.Figures[nullNs]
	return sample
}

// sample raises a site for what measures in it, and takes it down.
func (b *Wire) sample(ctx context.Context, sample Sample, oneArmed, pair bool, measure func(context.Context, *site) (map[string]float64, error)) Sample {
	ctx, cancel := context.WithTimeout(ctx, 3*b.Time+overhead)
	defer cancel()
	site, err := newSite(oneArmed, pair)
	if err == nil {
		sample.Figures, err = measure(ctx, site)
		err = errors.Join(err, site.close())
	}
	if err != nil {
		sample.Error = err.Error()
		fmt.Fprintf(b.Bar.Over(b.Trouble), "%s at %s: %v\n", sample.Subject, sample.Work, err)
	}
	return sample
}
