package health

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
)

// past is a deadline that has gone by.
var past = time.Unix(1, 0)

// TLSOptions has the options of a check that speaks TLS.
type TLSOptions struct {
	// SNI is the server's name in the TLS greeting, and the name that its certificate must have with verify. Default: the
	// check's host, where it has one; else none is sent.
	SNI string `json:"sni,omitempty"`
	// Verify demands a certificate that is valid for the server's name and comes from a known authority. Default: any
	// certificate will do, because a check asks whether the server serves, not who it is.
	Verify bool `json:"verify,omitempty"`
	// CA is a PEM file with the authorities that verify trusts. Default: those of the host.
	CA string `json:"ca,omitempty"`
	// Cert is a PEM file with the client certificate to show, with its chain.
	Cert string `json:"cert,omitempty"`
	// Key is a PEM file with the key of cert. Default: the file of cert.
	Key string `json:"key,omitempty"`

	config *tls.Config
}

// prepare reads the files. name is the server's name where SNI isn't given; protocols are ALPN's.
func (o *TLSOptions) prepare(name string, protocols ...string) error {
	if o.SNI != "" {
		name = o.SNI
	}
	// A check that keeps no session sees each time whether the server can still make one.
	c := &tls.Config{ServerName: name, InsecureSkipVerify: !o.Verify, NextProtos: protocols, SessionTicketsDisabled: true}
	if o.Verify && name == "" {
		return errors.New("verify: sni must say which name the certificate should have")
	}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return fmt.Errorf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("ca: no certificate in %s: PEM is expected", o.CA)
		}
	}
	switch {
	case o.Cert != "":
		key := o.Key
		if key == "" {
			key = o.Cert
		}
		pair, err := tls.LoadX509KeyPair(o.Cert, key)
		if err != nil {
			return fmt.Errorf("cert: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	case o.Key != "":
		return errors.New("key: cert must say which certificate it is of")
	}
	o.config = c
	return nil
}

// Secure has the options of a protocol that is spoken with and without TLS.
type Secure struct {
	// TLS is how encryption begins: no, not at all; yes, with the first byte, as on a port of its own; starttls, by the protocol's
	// own command. Default no. sip, grpc and expect have no such command; mysql and postgres have nothing else.
	TLS string `json:"tls,omitempty"`
	TLSOptions
}

// starts says that the check uses the protocol's command to start TLS.
func (s *Secure) starts() bool { return s.TLS == "starttls" }

// prepare checks the options and reads the files. name and protocols are as for TLSOptions.
func (s *Secure) prepare(name string, protocols ...string) error {
	switch s.TLS {
	case "":
		s.TLS = "no"
	case "no", "yes", "starttls":
	default:
		return fmt.Errorf("tls: %q is not one of no, yes, starttls", s.TLS)
	}
	if s.TLS == "no" && (s.SNI != "" || s.Verify || s.CA != "" || s.Cert != "" || s.Key != "") {
		return errors.New("tls: yes or starttls is expected with sni, verify, ca, cert and key")
	}
	return s.TLSOptions.prepare(name, protocols...)
}

// open begins TLS where the check wants it from the first byte.
func (s *Secure) open(t *talk) error {
	if s.TLS == "yes" {
		return t.startTLS(s.config)
	}
	return nil
}

// startTLS begins TLS on the connection. What the server already said beyond its consent is an attack or a mistake.
func (t *talk) startTLS(config *tls.Config) error {
	if t.r.Buffered() > 0 {
		return errors.New("the server speaks before TLS begins")
	}
	// What a handshake may take is bounded by crypto/tls.
	conn := tls.Client(t.raw, config)
	if err := conn.HandshakeContext(t.ctx); err != nil {
		return because("TLS handshake", err)
	}
	t.conn = conn
	return nil
}
