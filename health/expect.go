package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"

	"uvs/service"
)

// Expect is the kind "expect": something is sent, and what the server says decides, as nanny did it for Piranha. It goes by UDP
// to a service of UDP and else by TCP.
type Expect struct {
	// Send is what is sent, with the escapes \r \n \t \0 \\ and \xHH. Default: nothing; the server speaks first.
	Send string `json:"send,omitempty"`
	// Expect is what the answer must begin with, with the same escapes; * takes any answer. Default: * if there is no match.
	Expect string `json:"expect,omitempty"`
	// Match is a regular expression (Go's, RE2) that must match somewhere in the answer's first 64 KiB, (?s) and (?m) being off.
	Match string `json:"match,omitempty"`
	Secure

	send, expect []byte
	match        *regexp.Regexp
}

// Kind implements Prober.
func (*Expect) Kind() string { return "expect" }

// Prepare implements Prober.
func (e *Expect) Prepare() (err error) {
	if e.send, err = unescape(e.Send); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if e.expect = nil; e.Expect != "*" {
		if e.expect, err = unescape(e.Expect); err != nil {
			return fmt.Errorf("expect: %w", err)
		}
	}
	if len(e.expect) > talkBytes {
		return fmt.Errorf("expect: more than %d bytes", talkBytes)
	}
	if e.Match != "" {
		if e.match, err = regexp.Compile(e.Match); err != nil {
			return fmt.Errorf("match: %w", err)
		}
	}
	if e.starts() {
		return errors.New("tls: no or yes is expected")
	}
	return e.Secure.prepare("")
}

// Probe implements Prober.
func (e *Expect) Probe(ctx context.Context, to *Target) (string, error) {
	network := "tcp"
	if to.Protocol == service.UDP {
		network = "udp"
	}
	t, err := dial(ctx, to, network)
	if err != nil {
		return "", err
	}
	defer t.close()
	if network == "tcp" {
		if err := e.open(t); err != nil {
			return "", err
		}
	}
	if len(e.send) > 0 || network == "udp" {
		if _, err := t.Write(e.send); err != nil {
			return "", because("cannot send", err)
		}
	}
	var answer []byte
	piece := make([]byte, 4096)
	var judged, times int
	for {
		n, err := t.Read(piece)
		answer = append(answer, piece[:n]...)
		// A server that sends byte by byte doesn't have the expression tried for each of a long answer.
		if times++; err != nil || times < 32 || len(answer)-judged > judged/2 {
			judged = len(answer)
			if good, final := e.judge(answer); good {
				return printable(string(answer)), nil
			} else if final || err != nil && len(answer) > 0 {
				return "", fmt.Errorf("the answer is %q", printable(string(answer)))
			}
		}
		if err != nil {
			return "", because("no answer", err)
		}
	}
}

// judge says whether so much of the answer is good, or can't become so with what may follow.
func (e *Expect) judge(answer []byte) (good, final bool) {
	begun := answer[:min(len(answer), len(e.expect))]
	switch {
	case !bytes.HasPrefix(e.expect, begun):
		return false, true
	case len(answer) == 0 || len(begun) < len(e.expect):
		return false, false
	case e.match != nil && !e.match.Match(answer):
		return false, false
	}
	return true, true
}
