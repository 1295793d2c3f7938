package top

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"uvs/control/api"
)

// maxConns is how many connections are kept to be shown; more are counted.
const maxConns = 10_000

// patience is how long the source may take for an answer.
const patience = 10 * time.Second

// question is what the source is asked for.
type question struct {
	of     *subject // whose connections, nil for none
	filter string   // that the connections must meet
}

// subject is a service, or a real server of it.
type subject struct {
	service api.ServiceKey
	server  *api.ServerKey
}

func (s *subject) String() string {
	if s.server != nil {
		return fmt.Sprintf("%v at %v", s.service, s.server)
	}
	return s.service.String()
}

// sample is the source's answer.
type sample struct {
	question
	at       time.Time
	err      error // then nothing else is there
	services []api.Service
	status   *api.Status
	conns    []api.Connection
	met      int // connections that meet the question; conns has maxConns of them at most
	panicked any
}

// poller asks the source in a goroutine of its own, one question at a time; the last one asked counts.
type poller struct {
	questions chan question
	answers   chan *sample
	done      chan struct{}
}

func startPoller(ctx context.Context, src Source) *poller {
	p := &poller{questions: make(chan question, 1), answers: make(chan *sample), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for {
			select {
			case <-ctx.Done():
				return
			case q := <-p.questions:
				s := look(ctx, src, q)
				select {
				case <-ctx.Done():
				case p.answers <- s:
				}
			}
		}
	}()
	return p
}

// ask puts a question, in the place of one that nobody has looked at yet.
func (p *poller) ask(q question) {
	select {
	case <-p.questions:
	default:
	}
	p.questions <- q
}

// wait waits for the goroutine, whose context has ended.
func (p *poller) wait() { <-p.done }

// look asks the source. A panic is the sample's, so that it ends the view in order.
func look(ctx context.Context, src Source, q question) (s *sample) {
	s = &sample{question: q}
	defer func() {
		if r := recover(); r != nil {
			s.panicked = fmt.Sprintf("%v\n%s", r, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if s.services, s.err = src.Services(ctx, nil); s.err == nil {
		s.status, s.err = src.Status(ctx)
	}
	if s.err == nil && q.of != nil {
		s.err = src.Connections(ctx, api.ConnectionFilter{Service: &q.of.service}, func(c *api.Connection) error {
			if q.of.server != nil && (c.Server.Addr() != q.of.server.Address || c.Server.Port() != q.of.server.Port && c.Server.Port() != 0) {
				return nil
			}
			if !matches(q.filter, connCells(c)...) {
				return nil
			}
			if s.met++; len(s.conns) < maxConns {
				s.conns = append(s.conns, *c)
			}
			return nil
		})
	}
	s.at = time.Now()
	return s
}

// matches says that one of texts contains the filter, in any case. Every text meets an empty one.
func matches(filter string, texts ...string) bool {
	filter = strings.ToLower(filter)
	for _, t := range texts {
		if strings.Contains(strings.ToLower(t), filter) {
			return true
		}
	}
	return filter == ""
}
