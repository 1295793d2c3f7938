package api

import "testing"

func TestCheckIDs(t *testing.T) {
	for _, c := range []struct {
		spec CheckSpec
		want string
	}{
		{CheckSpec{"kind": "tcp"}, "tcp"}, {CheckSpec{"kind": "tcp", "id": "front"}, "front"},
		{CheckSpec{"kind": "tcp", "id": 1234567.0}, "1234567"}, {CheckSpec{}, ""},
	} {
		if got := c.spec.ID(); got != c.want {
			t.Errorf("ID of %v is %q, want %q", c.spec, got, c.want)
		}
	}
}

func TestCheckTestRequests(t *testing.T) {
	for body, ok := range map[string]bool{
		`{"service":{"protocol":"tcp","address":"192.0.2.100","port":80}}`:                                                         true,
		`{"service":{"protocol":"tcp","address":"192.0.2.100","port":80},"check":{"kind":"tcp"},"id":"tcp"}`:                       false,
		`{"service":{"protocol":"tcp","address":"192.0.2.100","port":80},"server":{"address":"10.0.0.11","port":80},"id":"front"}`: true,
		`{"service":{"protocol":"tcp","address":"192.0.2.100","port":80},"server":{"port":80}}`:                                    false,
		`{"check":{"kind":"tcp"}}`: false,
	} {
		if _, err := decodeChecked[CheckTestRequest](([]byte)(body)); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
	for body, ok := range map[string]bool{
		`{"ops":[{"op":"add-check","service":{"fwmark":7,"family":"ipv4"},"check":{"kind":"tcp"}}]}`:                    true,
		`{"ops":[{"op":"add-check","service":{"fwmark":7,"family":"ipv4"}}]}`:                                           false,
		`{"ops":[{"op":"add-check","check":{"kind":"tcp"}}]}`:                                                           false,
		`{"ops":[{"op":"delete-check","service":{"fwmark":7,"family":"ipv4"},"checkID":"tcp"}]}`:                        true,
		`{"ops":[{"op":"delete-check","service":{"fwmark":7,"family":"ipv4"},"check":{"kind":"tcp"}}]}`:                 false,
		`{"ops":[{"op":"set-policy","service":{"fwmark":7,"family":"ipv4"}}]}`:                                          true,
		`{"ops":[{"op":"set-policy","service":{"fwmark":7,"family":"ipv4"},"server":{"address":"10.0.0.1","port":1}}]}`: false,
	} {
		if _, err := DecodeChange([]byte(body)); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
}
