// Package agent is the real server's end of HAProxy's agent-check protocol, and that protocol: how much of its usual share a
// server can take, whether it wants new connections at all, in one line of text. It measures the host it runs on by /proc.
package agent

import (
	"fmt"
	"strconv"
	"strings"
)

// Reply is one line of the agent-check protocol (HAProxy's configuration manual, "agent-check"). What the agent doesn't
// mention stays as it was: so every part has a value for "not said".
type Reply struct {
	// Percent is the share of the configured weight, 0 to MaxPercent; NotSaid if there was none. 0 means no new connections.
	Percent int
	// MaxConn is the number of connections that the server wants at most; NotSaid if there was none.
	MaxConn int
	// Admin is what the server's administrator wants.
	Admin Admin
	// State is whether the service works.
	State State
	// Reason is the text behind '#', without control characters.
	Reason string
}

// NotSaid is the value of a number that the agent did not mention.
const NotSaid = -1

// MaxPercent is the highest share that is believed: more is taken for a mistake and read as this.
const MaxPercent = 1000

// MaxLine is the longest reply, in bytes, that is looked at; what is behind it is ignored.
const MaxLine = 1024

// Admin is the administrative state: up to the server's administrator.
type Admin uint8

// The administrative states.
const (
	AdminNotSaid Admin = iota
	Ready              // takes new connections; ends Drain and Maint
	Drain              // no new connections but of known clients
	Maint              // no connections at all
)

// State is the operational state: up to the service.
type State uint8

// The operational states.
const (
	StateNotSaid State = iota
	Up
	Down
)

var (
	adminWords = []string{Ready: "ready", Drain: "drain", Maint: "maint"}
	stateWords = map[string]State{"up": Up, "down": Down, "fail": Down, "stopped": Down}
)

// Parse reads a reply: words separated by blanks or commas, in any case and order, up to the end of the line or of line. The
// last of two that contradict each other holds. A line without a known word is an error, and so is a number that is none;
// unknown words beside known ones are passed over, as HAProxy does, and nothing of a line in error counts.
func Parse(line []byte) (Reply, error) {
	r := Reply{Percent: NotSaid, MaxConn: NotSaid}
	text := string(line[:min(len(line), MaxLine)])
	if i := strings.IndexAny(text, "\r\n"); i >= 0 {
		text = text[:i]
	}
	text, reason, _ := strings.Cut(text, "#")
	r.Reason = printable(reason)
	known := false
	for _, word := range strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == '\t' || c == ',' }) {
		ok, err := r.word(strings.ToLower(word))
		if err != nil {
			return Reply{Percent: NotSaid, MaxConn: NotSaid}, err
		}
		known = known || ok
	}
	if !known {
		return Reply{Percent: NotSaid, MaxConn: NotSaid},
			fmt.Errorf("the agent says %q: neither a percentage nor up, down, ready, drain, maint, stopped, fail, maxconn:N", printable(text))
	}
	return r, nil
}

// word takes one word in lower case; known says that it means something.
func (r *Reply) word(w string) (known bool, err error) {
	if s, is := stateWords[w]; is {
		r.State = s
		return true, nil
	}
	for i, name := range adminWords {
		if name != "" && w == name {
			r.Admin = Admin(i)
			return true, nil
		}
	}
	if n, is := strings.CutSuffix(w, "%"); is {
		v, err := strconv.ParseUint(n, 10, 31)
		if err != nil {
			return false, fmt.Errorf("the agent says %q: a percentage is a whole number from 0 on", w)
		}
		r.Percent = int(min(v, MaxPercent))
		return true, nil
	}
	if n, is := strings.CutPrefix(w, "maxconn:"); is {
		v, err := strconv.ParseUint(n, 10, 31)
		if err != nil {
			return false, fmt.Errorf("the agent says %q: maxconn is a whole number from 0 on", w)
		}
		r.MaxConn = int(v)
		return true, nil
	}
	return false, nil
}

// printable is text without blanks at its ends and with a '?' for each character that a terminal might act on.
func printable(text string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(strings.TrimSpace(text), "?")))
}

// String is the reply as an agent sends it, without the end of the line; Parse reads it back.
func (r Reply) String() string {
	var words []string
	switch r.State {
	case Up:
		words = append(words, "up")
	case Down:
		words = append(words, "down")
	}
	if r.Admin != AdminNotSaid {
		words = append(words, adminWords[r.Admin])
	}
	if r.Percent != NotSaid {
		words = append(words, strconv.Itoa(r.Percent)+"%")
	}
	if r.MaxConn != NotSaid {
		words = append(words, "maxconn:"+strconv.Itoa(r.MaxConn))
	}
	if r.Reason != "" {
		return strings.Join(words, " ") + " #" + r.Reason
	}
	return strings.Join(words, " ")
}
