package kubelet

import "testing"

func TestRewrite(t *testing.T) {
	seen := newView([]mount{
		{"/certs", "/state/v/tls"},
		{"/etc/app/", "/state/v/config"},
		{"/etc/app/extra", "/state/v/extra"},
		{"/state", "/elsewhere"},
	}, "127.9.0.2")
	for text, want := range map[string]string{
		// Mount paths, as whole paths only.
		"/certs":                          "/state/v/tls",
		"--cert=/certs/tls.crt":           "--cert=/state/v/tls/tls.crt",
		"/certs/a:/certs/b,/certs":        "/state/v/tls/a:/state/v/tls/b,/state/v/tls",
		"file:///certs/a":                 "file:///state/v/tls/a",
		"/etc/app/extra/x /etc/app/other": "/state/v/extra/x /state/v/config/other",
		"/var/certs /certs2 /certs-old":   "/var/certs /certs2 /certs-old",
		"http://host/certs/x":             "http://host/certs/x",
		"$(ROOT)/certs ${ROOT}/certs":     "$(ROOT)/certs ${ROOT}/certs",
		"path: \"/certs\"\n":              "path: \"/state/v/tls\"\n",
		// The wildcard and the loopback address.
		"0.0.0.0":                   "127.9.0.2",
		"--listen=0.0.0.0:9002":     "--listen=127.9.0.2:9002",
		"[::]:9002":                 "127.9.0.2:9002",
		"::":                        "127.9.0.2",
		"http://127.0.0.1:80/x":     "http://127.9.0.2:80/x",
		"http://0.0.0.0/health":     "http://127.9.0.2/health",
		"bind to 0.0.0.0.":          "bind to 127.9.0.2.",
		"allow 0.0.0.0/0":           "allow 0.0.0.0/0",
		"127.0.0.10 1127.0.0.1":     "127.0.0.10 1127.0.0.1",
		"localhost:6379":            "localhost:6379",
		"v0.0.0.0 10.0.0.0 0.0.0.0": "v0.0.0.0 10.0.0.0 127.9.0.2",
	} {
		if got := seen.rewrite(text); got != want {
			t.Errorf("%q became %q instead of %q", text, got, want)
		}
	}
}
