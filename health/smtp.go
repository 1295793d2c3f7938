package health

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// SMTP is the kind "smtp": a mail server must greet and answer EHLO.
type SMTP struct {
	// Hello is the name that EHLO gives. Default: the address that the probe comes from, in brackets.
	Hello string `json:"hello,omitempty"`
	Secure
}

// Kind implements Prober.
func (*SMTP) Kind() string { return "smtp" }

// Prepare implements Prober.
func (s *SMTP) Prepare() error {
	if err := oneLine("hello", s.Hello); err != nil {
		return err
	}
	return s.Secure.prepare("")
}

// Probe implements Prober.
func (s *SMTP) Probe(ctx context.Context, to *Target) (string, error) {
	t, err := dial(ctx, to, "tcp")
	if err != nil {
		return "", err
	}
	defer t.close()
	if err := s.open(t); err != nil {
		return "", err
	}
	_, greeting, err := t.want("greeting", 220)
	if err != nil {
		return "", err
	}
	hello := "EHLO " + s.Hello
	if s.Hello == "" {
		hello = "EHLO " + literal(t.raw.LocalAddr())
	}
	if _, _, err := t.ask(hello, 250); err != nil {
		return "", err
	}
	if s.starts() {
		if _, _, err := t.ask("STARTTLS", 220); err != nil {
			return "", err
		}
		if err := t.startTLS(s.config); err != nil {
			return "", err
		}
		if _, _, err := t.ask(hello, 250); err != nil {
			return "", err
		}
	}
	t.bye([]byte("QUIT\r\n"))
	return greeting, nil
}

// literal is an address as EHLO has it in place of a name (RFC 5321 section 4.1.3).
func literal(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return "uvs.invalid"
	}
	if addr := ap.Addr().Unmap().WithZone(""); addr.Is4() {
		return "[" + addr.String() + "]"
	} else {
		return "[IPv6:" + strings.ToLower(addr.String()) + "]"
	}
}
