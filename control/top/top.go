// Package top is uvsadm's live view of a director in a terminal: virtual services, real servers and rates, and the connections
// of each. It asks an api.Backend and changes nothing.
package top

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gdamore/tcell/v3"

	"uvs/control/api"
)

// Source is the part of api.Backend that is shown.
type Source interface {
	Services(ctx context.Context, key *api.ServiceKey) ([]api.Service, error)
	Status(ctx context.Context) (*api.Status, error)
	Connections(ctx context.Context, filter api.ConnectionFilter, yield func(*api.Connection) error) error
}

// Intervals between two looks at the source. The director's rates are new every two seconds.
const (
	DefaultInterval = 2 * time.Second
	minInterval     = 250 * time.Millisecond
	maxInterval     = time.Minute
)

// Run shows src on the process's terminal until the user has seen enough, a signal ends the process or ctx ends. However it
// returns, by a panic too, the terminal is as it was before.
func Run(ctx context.Context, src Source, interval time.Duration) error {
	// No questions to the terminal: nothing here needs the answers, and late ones would end up in the shell.
	screen, err := tcell.NewScreen(tcell.OptNegotiation(false))
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return fmt.Errorf("no terminal: %w", err)
	}
	return show(ctx, src, screen, interval)
}

// EndedBy says that a signal ended the view.
type EndedBy struct{ Signal os.Signal }

// Error implements error.
func (e *EndedBy) Error() string { return fmt.Sprintf("ended by signal: %v", e.Signal) }

// show is Run on a screen that is ready. It finishes the screen.
func show(ctx context.Context, src Source, screen tcell.Screen, interval time.Duration) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	signals, stopSignals := notify()
	p := startPoller(ctx, src)
	defer func() { // during a panic too, before it is printed
		screen.Fini()
		cancel()
		p.wait()
		stopSignals()
	}()
	v := newView(interval)
	p.ask(v.question())
	tick := time.NewTimer(v.interval)
	defer tick.Stop()
	for {
		v.draw(screen)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-p.answers:
			if s.panicked != nil {
				panic(s.panicked) // here, where the terminal is given back
			}
			v.took(s)
			tick.Reset(v.interval)
		case <-tick.C:
			if v.paused {
				tick.Reset(v.interval)
			} else {
				p.ask(v.question())
			}
		case sig := <-signals:
			if err := onSignal(sig, screen, signals); err != nil {
				return err
			}
		case ev := <-screen.EventQ():
			switch ev := ev.(type) {
			case nil:
				return errors.New("the terminal is gone")
			case *tcell.EventError:
				return fmt.Errorf("the terminal is gone: %w", ev)
			case *tcell.EventResize:
				screen.Sync()
			case *tcell.EventKey:
				switch v.key(ev) {
				case quit:
					return nil
				case suspend:
					if err := stop(screen, signals); err != nil {
						return err
					}
				case refresh:
					p.ask(v.question())
				case redraw:
					screen.Sync()
				}
			}
		}
	}
}
