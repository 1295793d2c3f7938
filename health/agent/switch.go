package agent

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// Switch is what the server's administrator wants, whoever said it last: a signal, a command, a file. Its methods may be
// called by many goroutines.
type Switch struct {
	// File drains the server for as long as a file of that name exists; "" is no file. Its first line is the reason.
	File string

	mu     sync.Mutex
	state  State // guarded by mu, as are the next two
	admin  Admin
	reason string
}

// Set takes a word of the protocol: up, down, ready, drain or maint; the text behind it is the reason. "ready" also ends "down".
func (s *Switch) Set(command string) error {
	word, reason, _ := strings.Cut(strings.TrimSpace(command), " ")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch word {
	case "ready", "up":
		s.admin, s.state = Ready, Up
	case "drain":
		s.admin = Drain
	case "maint":
		s.admin = Maint
	case "down":
		s.state = Down
	default:
		return fmt.Errorf("unknown command %q: drain, maint, down, ready or status", printable(word))
	}
	s.reason = printable(reason)
	return nil
}

// fill puts into r what the administrator wants.
func (s *Switch) fill(r *Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.State, r.Admin, r.Reason = s.state, s.admin, s.reason
	if r.State == StateNotSaid {
		r.State = Up
	}
	if r.Admin == AdminNotSaid {
		r.Admin = Ready
	}
	if s.File == "" {
		return
	}
	f, err := os.Open(s.File)
	if err != nil {
		if !os.IsNotExist(err) { // it is there and must not be read
			r.Admin = max(r.Admin, Drain)
		}
		return
	}
	defer f.Close()
	if r.Admin = max(r.Admin, Drain); r.Reason == "" {
		line, _ := bufio.NewReader(io.LimitReader(f, 200)).ReadString('\n') // a directory or a pipe has no line
		r.Reason = printable(line)
	}
}
