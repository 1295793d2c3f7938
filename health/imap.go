package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// IMAP is the kind "imap": an IMAP server must greet, and let a user log in if one is given.
type IMAP struct {
	// User is who logs in. Default: nobody does.
	User string `json:"user,omitempty"`
	// Password is user's.
	Password string `json:"password,omitempty"`
	Secure
}

// Kind implements Prober.
func (*IMAP) Kind() string { return "imap" }

// Prepare implements Prober.
func (p *IMAP) Prepare() error {
	return errors.Join(oneLine("user", p.User), oneLine("password", p.Password), p.Secure.prepare(""))
}

// Probe implements Prober.
func (p *IMAP) Probe(ctx context.Context, to *Target) (string, error) {
	t, err := dial(ctx, to, "tcp")
	if err != nil {
		return "", err
	}
	defer t.close()
	if err := p.open(t); err != nil {
		return "", err
	}
	greeting, err := t.line("greeting")
	if err != nil {
		return "", err
	}
	state, _, _ := strings.Cut(strings.TrimPrefix(strings.ToUpper(greeting), "* "), " ")
	if !strings.HasPrefix(greeting, "* ") || state != "OK" && state != "PREAUTH" {
		return "", fmt.Errorf("greeting: %q", printable(greeting))
	}
	if p.starts() {
		if err := t.tagged("a1", "STARTTLS", ""); err != nil {
			return "", err
		}
		if err := t.startTLS(p.config); err != nil {
			return "", err
		}
	}
	if p.User != "" && state == "OK" {
		if err := t.tagged("a2", "LOGIN", " "+imapString(p.User)+" "+imapString(p.Password)); err != nil {
			return "", err
		}
	}
	t.bye([]byte("a3 LOGOUT\r\n"))
	return printable(greeting), nil
}

// tagged sends a command of IMAP and reads up to its result, which must be OK (RFC 9051 section 2.2.2).
func (t *talk) tagged(tag, command, arguments string) error {
	if err := t.say("%s %s%s\r\n", tag, command, arguments); err != nil {
		return err
	}
	for {
		line, err := t.line("reply to " + command)
		if err != nil {
			return err
		}
		result, ours := strings.CutPrefix(line, tag+" ")
		switch {
		case !ours && strings.HasPrefix(strings.ToUpper(line), "* BYE"), !ours && !strings.HasPrefix(line, "* "):
			return fmt.Errorf("reply to %s: %q", command, printable(line))
		case ours && strings.EqualFold(result, "OK"), ours && len(result) > 2 && strings.EqualFold(result[:3], "OK "):
			return nil
		case ours:
			return fmt.Errorf("reply to %s: %q", command, printable(result))
		}
	}
}

// imapString is s as a quoted string.
func imapString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
