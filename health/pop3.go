package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// POP3 is the kind "pop3": a POP3 server must greet, and let a user log in if one is given.
type POP3 struct {
	// User is who logs in. Default: nobody does.
	User string `json:"user,omitempty"`
	// Password is user's.
	Password string `json:"password,omitempty"`
	Secure
}

// Kind implements Prober.
func (*POP3) Kind() string { return "pop3" }

// Prepare implements Prober.
func (p *POP3) Prepare() error {
	return errors.Join(oneLine("user", p.User), oneLine("password", p.Password), p.Secure.prepare(""))
}

// Probe implements Prober.
func (p *POP3) Probe(ctx context.Context, to *Target) (string, error) {
	t, err := dial(ctx, to, "tcp")
	if err != nil {
		return "", err
	}
	defer t.close()
	if err := p.open(t); err != nil {
		return "", err
	}
	greeting, err := t.status("greeting")
	if err != nil {
		return "", err
	}
	if p.starts() {
		if err := t.command("STLS"); err != nil {
			return "", err
		}
		if err := t.startTLS(p.config); err != nil {
			return "", err
		}
	}
	if p.User != "" {
		if err := t.command("USER " + p.User); err != nil {
			return "", err
		}
		if err := t.command("PASS " + p.Password); err != nil {
			return "", err
		}
	}
	t.bye([]byte("QUIT\r\n"))
	return greeting, nil
}

// command sends a command of POP3, to which the server must say yes.
func (t *talk) command(line string) error {
	if err := t.say("%s\r\n", line); err != nil {
		return err
	}
	word, _, _ := strings.Cut(line, " ") // a password isn't told of
	_, err := t.status("reply to " + word)
	return err
}

// status reads a line of POP3 with which the server says yes (RFC 1939 section 3).
func (t *talk) status(what string) (string, error) {
	line, err := t.line(what)
	if err != nil {
		return "", err
	}
	if line != "+OK" && !strings.HasPrefix(line, "+OK ") {
		return "", fmt.Errorf("%s: %q", what, printable(line))
	}
	return printable(line), nil
}
