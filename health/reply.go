package health

import (
	"fmt"
	"strings"
)

// reply reads a reply of SMTP (RFC 5321 section 4.2.1) or FTP (RFC 959 section 4.2): three digits, and with a dash after them
// more lines until one has the same digits and no dash. It returns the number and the first line. what says what is waited for.
func (t *talk) reply(what string) (code int, text string, err error) {
	text, err = t.line(what)
	if err != nil {
		return 0, "", err
	}
	code, more, ok := replyCode(text)
	if !ok {
		return 0, "", fmt.Errorf("no %s, but %q", what, printable(text))
	}
	for more {
		line, err := t.line(what)
		if err != nil {
			return 0, "", err
		}
		if c, dash, ok := replyCode(line); ok && c == code && !dash {
			break
		}
	}
	return code, printable(text), nil
}

// replyCode reads the number that a reply's line begins with; more says that others follow.
func replyCode(line string) (code int, more, ok bool) {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, false, false
	}
	for _, c := range []byte(line[:3]) {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		code = 10*code + int(c-'0')
	}
	return code, len(line) > 3 && line[3] == '-', code >= 100 && code < 600
}

// ask sends a command of SMTP or FTP and returns the first line of its reply, which must have one of the numbers.
func (t *talk) ask(command string, good ...int) (code int, text string, err error) {
	word, _, _ := strings.Cut(command, " ") // a password isn't told of
	if err := t.say("%s\r\n", command); err != nil {
		return 0, "", err
	}
	return t.want("reply to "+word, good...)
}

// want reads a reply, which must have one of the numbers.
func (t *talk) want(what string, good ...int) (code int, text string, err error) {
	code, text, err = t.reply(what)
	if err != nil {
		return 0, "", err
	}
	for _, g := range good {
		if code == g {
			return code, text, nil
		}
	}
	return 0, "", fmt.Errorf("%s: %s", what, text)
}

// oneLine says that an option has no line break or other control character, which would become part of the protocol.
func oneLine(option, value string) error {
	if strings.ContainsFunc(value, isControl) {
		return fmt.Errorf("%s: control characters are not possible", option)
	}
	return nil
}
