package health

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"fmt"

	"uvs/packet"
)

// Radius is the kind "radius": a RADIUS server must accept a user (RFC 2865), or say that it is there (Status-Server, RFC 5997).
type Radius struct {
	// Secret is what the server and the director share.
	Secret string `json:"secret,omitempty"`
	// User is whom the server is asked about. Default: nobody, it is sent Status-Server.
	User string `json:"user,omitempty"`
	// Password is user's.
	Password string `json:"password,omitempty"`
	// Accept is which answers are good: "accept" is the user's acceptance, "any" also his rejection or a challenge. Default accept.
	Accept string `json:"accept,omitempty"`
	// NAS is the name that the request gives as NAS-Identifier. Default uvs.
	NAS string `json:"nas,omitempty"`
}

// Codes and attributes (RFC 2865 sections 4 and 5, RFC 3579 section 3.2).
const (
	radiusRequest            = 1
	radiusAccept             = 2
	radiusReject             = 3
	radiusAccountingResponse = 5
	radiusChallenge          = 11
	radiusStatusServer       = 12

	radiusUserName             = 1
	radiusUserPassword         = 2
	radiusNASIdentifier        = 32
	radiusMessageAuthenticator = 80

	radiusHeader    = 20
	radiusMaxPacket = 4096
)

// Kind implements Prober.
func (*Radius) Kind() string { return "radius" }

// Prepare implements Prober.
func (r *Radius) Prepare() error {
	if r.NAS == "" {
		r.NAS = "uvs"
	}
	if r.Accept == "" {
		r.Accept = "accept"
	}
	switch {
	case r.Secret == "":
		return errors.New("secret: it is wanted")
	case len(r.User) > 253 || len(r.NAS) > 253:
		return errors.New("user: at most 253 bytes are possible, for nas too")
	case len(r.Password) > 128:
		return errors.New("password: at most 128 bytes are possible")
	case r.Accept != "accept" && r.Accept != "any":
		return fmt.Errorf("accept: %q is not one of accept, any", r.Accept)
	}
	return nil
}

// Probe implements Prober.
func (r *Radius) Probe(ctx context.Context, to *Target) (string, error) {
	t, err := dial(ctx, to, "udp")
	if err != nil {
		return "", err
	}
	defer t.close()
	request := r.request()
	if _, err := t.Write(request); err != nil {
		return "", because("cannot send", err)
	}
	b := make([]byte, radiusMaxPacket)
	forged := false
	for range maxOthers {
		n, err := t.Read(b)
		if err != nil && forged {
			return "", errors.New("the answer was made with another secret")
		}
		if err != nil {
			return "", because("no answer", err)
		}
		code, ours := r.answer(b[:n], request)
		switch {
		case !ours:
			forged = forged || n >= radiusHeader && b[1] == request[1]
			continue
		case code == radiusAccept, code == radiusAccountingResponse && r.User == "":
			return radiusNames[code], nil
		case radiusNames[code] != "" && r.Accept == "any":
			return radiusNames[code], nil
		}
		if radiusNames[code] == "" {
			return "", fmt.Errorf("the answer has code %d", code)
		}
		return "", errors.New(radiusNames[code])
	}
	return "", errOthers
}

var radiusNames = map[byte]string{
	radiusAccept: "Access-Accept", radiusReject: "Access-Reject", radiusAccountingResponse: "Accounting-Response", radiusChallenge: "Access-Challenge",
}

// request is a request with a number and an authenticator of its own.
func (r *Radius) request() []byte {
	b := make([]byte, radiusHeader)
	_, _ = rand.Read(b[1:])
	b[0] = radiusStatusServer
	if r.User != "" {
		b[0] = radiusRequest
		b = radiusAttribute(b, radiusUserName, []byte(r.User))
		b = radiusAttribute(b, radiusUserPassword, r.hide(b[4:20]))
	}
	b = radiusAttribute(b, radiusNASIdentifier, []byte(r.NAS))
	b = radiusAttribute(b, radiusMessageAuthenticator, make([]byte, md5.Size))
	packet.SetWord(b[2:], uint16(len(b)))
	copy(b[len(b)-md5.Size:], r.sum(b))
	return b
}

// hide is the password under the secret (RFC 2865 section 5.2).
func (r *Radius) hide(authenticator []byte) []byte {
	out := make([]byte, max(16, (len(r.Password)+15)/16*16))
	copy(out, r.Password)
	last := authenticator
	for at := 0; at < len(out); at += 16 {
		key := md5.Sum(append([]byte(r.Secret), last...))
		for i := range key {
			out[at+i] ^= key[i]
		}
		last = out[at : at+16]
	}
	return out
}

// sum is the Message-Authenticator of a packet in which it is all zero.
func (r *Radius) sum(b []byte) []byte {
	h := hmac.New(md5.New, []byte(r.Secret))
	h.Write(b)
	return h.Sum(nil)
}

func radiusAttribute(b []byte, kind byte, value []byte) []byte {
	return append(append(b, kind, byte(2+len(value))), value...)
}

// answer says what a packet answers to request. ours is false if it is no answer to it, or one by somebody without the secret.
func (r *Radius) answer(b, request []byte) (code byte, ours bool) {
	if len(b) < radiusHeader || b[1] != request[1] {
		return 0, false
	}
	n := int(packet.Word(b[2:]))
	if n < radiusHeader || n > len(b) {
		return 0, false
	}
	b = bytes.Clone(b[:n])
	claimed := [16]byte(b[4:20])
	copy(b[4:20], request[4:20])
	if md5.Sum(append(bytes.Clone(b), r.Secret...)) != claimed {
		return 0, false
	}
	for rest := b[radiusHeader:]; len(rest) > 0; {
		if len(rest) < 2 || rest[1] < 2 || int(rest[1]) > len(rest) {
			return 0, false
		}
		value := rest[2:rest[1]]
		if rest[0] == radiusMessageAuthenticator {
			said := bytes.Clone(value)
			clear(value)
			if !hmac.Equal(said, r.sum(b)) {
				return 0, false
			}
			copy(value, said)
		}
		rest = rest[rest[1]:]
	}
	return b[0], true
}
