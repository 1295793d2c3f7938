package health

import (
	"cmp"
	"context"
	"errors"
)

// FTP is the kind "ftp": an FTP server must let a user log in.
type FTP struct {
	// User is who logs in. Default anonymous.
	User string `json:"user,omitempty"`
	// Password is user's. Default uvs@, for anonymous.
	Password string `json:"password,omitempty"`
	Secure
}

// Kind implements Prober.
func (*FTP) Kind() string { return "ftp" }

// Prepare implements Prober.
func (f *FTP) Prepare() error {
	f.User = cmp.Or(f.User, "anonymous")
	if f.User == "anonymous" {
		f.Password = cmp.Or(f.Password, "uvs@")
	}
	return errors.Join(oneLine("user", f.User), oneLine("password", f.Password), f.Secure.prepare(""))
}

// Probe implements Prober.
func (f *FTP) Probe(ctx context.Context, to *Target) (string, error) {
	t, err := dial(ctx, to, "tcp")
	if err != nil {
		return "", err
	}
	defer t.close()
	if err := f.open(t); err != nil {
		return "", err
	}
	if _, _, err := t.want("greeting", 220); err != nil {
		return "", err
	}
	if f.starts() {
		if _, _, err := t.ask("AUTH TLS", 234); err != nil {
			return "", err
		}
		if err := t.startTLS(f.config); err != nil {
			return "", err
		}
	}
	code, said, err := t.ask("USER "+f.User, 230, 331)
	if err != nil {
		return "", err
	}
	if code == 331 {
		if _, said, err = t.ask("PASS "+f.Password, 230, 202); err != nil {
			return "", err
		}
	}
	t.bye([]byte("QUIT\r\n"))
	return said, nil
}
