package health

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Postgres is the kind "postgres": a PostgreSQL server must let a client begin to log in, as pg_isready asks it. One that is
// starting up, shutting down or has no connection left is down; one that asks for a password is up.
type Postgres struct {
	// User is who logs in, and must be known. Default: somebody unknown, whom the server may refuse as such.
	User string `json:"user,omitempty"`
	// Database is which one is asked for. Default user.
	Database string `json:"database,omitempty"`
	Secure

	startup []byte
}

const pgMaxMessage = 8192 // of those that belong to the beginning

// Kind implements Prober.
func (*Postgres) Kind() string { return "postgres" }

// Prepare implements Prober.
func (p *Postgres) Prepare() error {
	if strings.ContainsRune(p.User+p.Database, 0) || len(p.User)+len(p.Database) > 1024 {
		return errors.New("user: a name is expected")
	}
	if p.Secure.TLS == "yes" {
		return errors.New("tls: no or starttls is expected")
	}
	user := cmp.Or(p.User, "uvs-check")
	p.startup = binary.BigEndian.AppendUint32(make([]byte, 4), 3<<16) // the protocol's version
	for _, s := range []string{"user", user, "database", cmp.Or(p.Database, user), "application_name", "uvs", ""} {
		p.startup = append(append(p.startup, s...), 0)
	}
	binary.BigEndian.PutUint32(p.startup, uint32(len(p.startup)))
	return p.Secure.prepare("")
}

// Probe implements Prober.
func (p *Postgres) Probe(ctx context.Context, to *Target) (string, error) {
	t, err := dial(ctx, to, "tcp")
	if err != nil {
		return "", err
	}
	defer t.close()
	if p.starts() {
		if _, err := t.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil { // SSLRequest
			return "", because("cannot send", err)
		}
		yes := make([]byte, 1)
		if err := t.full(yes, "answer about TLS"); err != nil {
			return "", err
		}
		if yes[0] != 'S' {
			return "", errors.New("the server offers no TLS")
		}
		if err := t.startTLS(p.config); err != nil {
			return "", err
		}
	}
	if _, err := t.Write(p.startup); err != nil {
		return "", because("cannot send", err)
	}
	for range 64 { // notices and settings
		kind, b, err := t.pgMessage()
		if err != nil {
			return "", err
		}
		switch kind {
		case 'R':
			if len(b) < 4 {
				return "", errors.New("the answer isn't PostgreSQL's")
			}
			if binary.BigEndian.Uint32(b) == 0 && p.User != "" {
				continue // whether the user has a database is what comes next
			}
			t.bye([]byte{'X', 0, 0, 0, 4})
			return "it lets clients log in", nil
		case 'Z':
			t.bye([]byte{'X', 0, 0, 0, 4})
			return "logged in", nil
		case 'E':
			code, text := pgError(b)
			if p.User == "" && (strings.HasPrefix(code, "28") || strings.HasPrefix(code, "3D")) {
				return "it lets clients log in", nil
			}
			return "", errors.New(text)
		case 'N', 'S', 'K', 'v':
		default:
			return "", errors.New("the answer isn't PostgreSQL's")
		}
	}
	return "", errors.New("the login comes to no end")
}

// pgMessage reads a message: its type and what it says.
func (t *talk) pgMessage() (kind byte, b []byte, err error) {
	var head [5]byte
	if err := t.full(head[:], "answer"); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > pgMaxMessage {
		return 0, nil, errors.New("the answer isn't PostgreSQL's")
	}
	b = make([]byte, n-4)
	return head[0], b, t.full(b, "answer")
}

// pgError reads an error's fields: its SQLSTATE, and a text with severity and message.
func pgError(b []byte) (code, text string) {
	var severity, message string
	for len(b) > 1 {
		value, rest, ok := bytes.Cut(b[1:], []byte{0})
		if !ok {
			break
		}
		switch b[0] {
		case 'S':
			severity = string(value)
		case 'C':
			code = string(value)
		case 'M':
			message = string(value)
		}
		b = rest
	}
	return code, printable(fmt.Sprintf("%s: %s (%s)", severity, message, code))
}
