package health

import (
	"crypto/md5"
	"testing"
)

func md5Of(parts ...[]byte) []byte {
	h := md5.New()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func FuzzDNSAnswer(f *testing.F) {
	d := &DNS{Query: "www.example.com", Answer: "192.0.2.1"}
	prepared(f, d)
	f.Add([]byte("\x00\x07\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x03www\x07example\x03com\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"))
	f.Add([]byte("\x00\x07" + dnsHead[2:]))
	f.Fuzz(func(t *testing.T, b []byte) {
		if said, ours, err := d.judge(b, 7); said != "" && (!ours || err != nil) {
			t.Errorf("judge(%x) = %q, %v, %v", b, said, ours, err)
		}
	})
}

func FuzzMySQLGreeting(f *testing.F) {
	f.Add([]byte(mysqlHello[4:]))
	f.Add([]byte("\x0a5.5.5-10.11.6-MariaDB\x00\x01\x00\x00\x0012345678\x00\xfe\xff\x2d\x02\x00\xff\x81\x15\x00\x00\x00\x00\x00\x00\x1d\x00\x00\x00123456789012\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return // packets have at least a byte
		}
		if g, ok := parseMySQLGreeting(b); ok && (len(g.challenge) != 20 || g.plugin == "" && g.capabilities&mysqlPluginAuth == 0) {
			t.Errorf("%x is read as %+v", b, g)
		}
		mysqlError(b)
		(&MySQL{Password: "p"}).proof("caching_sha2_password", b)
	})
}

func FuzzMySQLPacket(f *testing.F) {
	f.Add([]byte(mysqlHello))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := (&mysqlTalk{talk: told(b)}).packet("packet"); err == nil && (len(p) == 0 || len(p) > len(b)-4) {
			t.Errorf("%x is read as %x", b, p)
		}
	})
}

func FuzzPostgresMessage(f *testing.F) {
	f.Add([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00"))
	f.Add([]byte("E\x00\x00\x00\x18SFATAL\x00C57P03\x00Mwait\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, m, err := told(b).pgMessage(); err == nil {
			if len(m) > len(b)-5 {
				t.Errorf("%x is read as %x", b, m)
			}
			pgError(m)
		}
	})
}

func FuzzLDAPMessage(f *testing.F) {
	f.Add([]byte("\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00"))
	f.Add([]byte("\x30\x84\x00\x00\x00\x10\x02\x01\x02\x61\x84\x00\x00\x00\x07\x0a\x01\x31\x04\x00\x04\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := told(b).ldapMessage("message")
		if err != nil {
			return
		}
		if code, text, ok := parseLDAPResult(m, 2, ldapBindResponse); ok && (code < 0 || code > 0xffff || len(text) > len(b)) {
			t.Errorf("%x is read as %d %q", b, code, text)
		}
	})
}

func FuzzRadiusAnswer(f *testing.F) {
	r := &Radius{Secret: "s"}
	request := make([]byte, 20)
	good := append([]byte{2, 0, 0, 20}, make([]byte, 16)...)
	copy(good[4:], md5Of(good, []byte("s")))
	f.Add(good)
	f.Add(append([]byte{2, 0, 0, 38}, make([]byte, 34)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if code, ours := r.answer(b, request); ours && code != b[0] {
			t.Errorf("%x is read as %d", b, code)
		}
	})
}

func FuzzSIPMessage(f *testing.F) {
	f.Add([]byte("SIP/2.0 200 OK\r\nVia: x\r\nCall-ID: a\r\nContent-Length: 0\r\n\r\n"))
	f.Add([]byte("\r\n\r\nSIP/2.0 100 Trying\ni: a\nl: 7\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := told(b).sipMessage(); err == nil && (m.code < 100 || m.code > 699 || m.length < 0) {
			t.Errorf("%q is read as %+v", b, m)
		}
	})
}

func FuzzGRPCHealth(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	f.Add([]byte("\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if status, ok := parseGRPCHealth(b); ok && status < 0 {
			t.Errorf("%x is read as %d", b, status)
		}
	})
}

func FuzzIMAPReply(f *testing.F) {
	f.Add([]byte("* 1 EXISTS\r\na1 OK done\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tk := told(b)
		tk.conn = silent{reading: tk.conn.(reading)}
		_ = tk.tagged("a1", "NOOP", "")
	})
}

// silent takes what is written.
type silent struct{ reading }

func (silent) Write(b []byte) (int, error) { return len(b), nil }
