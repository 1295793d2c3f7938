// Package progress shows how far a long measurement has come: a bar on the terminal, from the third second on, and nothing
// where the output isn't one.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	patience = 2 * time.Second        // what is over sooner needs no bar
	redraw   = 200 * time.Millisecond // between two draws
)

// Bar is a progress bar of one line. A nil Bar shows nothing. Its methods may be called by many goroutines.
type Bar struct {
	out   io.Writer
	width func() int
	what  string

	mu    sync.Mutex // guards what follows
	begun time.Time
	drawn time.Time
	shown bool
}

// New returns a bar with a title for out, or nil if out is no terminal.
func New(out *os.File, what string) *Bar {
	width := func() int {
		if size, err := unix.IoctlGetWinsize(int(out.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
		return 80
	}
	if _, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return &Bar{out: out, width: width, what: what, begun: time.Now()}
}

// Set says how much is done of all, in whatever unit, with a word about what is being done, which may be empty.
func (b *Bar) Set(done, of float64, note string) {
	if b == nil || of <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Sub(b.begun) < patience || now.Sub(b.drawn) < redraw {
		return
	}
	b.drawn, b.shown = now, true
	fmt.Fprint(b.out, "\r"+line(b.what, note, min(done/of, 1), now.Sub(b.begun), b.width())+"\x1b[K")
}

// While shows the bar while f runs, although nothing is heard from it, and takes it away.
func (b *Bar) While(done, of float64, note string, f func() error) error {
	if b == nil {
		return f()
	}
	stop := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() {
		tick := time.NewTicker(redraw)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				b.Set(done, of, note)
			}
		}
	})
	defer func() {
		close(stop)
		drawing.Wait()
		b.Done()
	}()
	return f()
}

// Over is a writer of what may come while the bar is there: the bar makes room for it.
func (b *Bar) Over(out io.Writer) io.Writer {
	if b == nil {
		return out
	}
	return over{b, out}
}

type over struct {
	bar *Bar
	out io.Writer
}

// Write implements io.Writer.
func (o over) Write(p []byte) (int, error) {
	o.bar.Done()
	return o.out.Write(p)
}

// line draws a bar that is no wider than a terminal.
func line(what, note string, share float64, took time.Duration, width int) string {
	left := ""
	if share > 0.01 {
		left = fmt.Sprintf(", %v left", time.Duration(float64(took)*(1-share)/share).Round(time.Second))
	}
	const cells = 24
	full := int(share*cells + 0.5)
	s := fmt.Sprintf("%s [%s%s] %3.0f %%%s", what, strings.Repeat("#", full), strings.Repeat(".", cells-full), 100*share, left)
	if note != "" {
		s += ", " + note
	}
	if r := []rune(s); len(r) >= width {
		s = string(r[:max(width-1, 0)])
	}
	return s
}

// Done takes the bar away.
func (b *Bar) Done() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shown {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.shown = false
	}
}
