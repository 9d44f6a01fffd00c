use super::*;

/// Texts with a secret, and what is left of them.
const HIDES: &[(&str, &str)] = &[
    // User information of URLs.
    ("postgres://user:secret@host/db", "postgres://user:***@host/db"),
    ("redis://:pw@h", "redis://:***@h"),
    ("redis://:pw@h:6379/0", "redis://:***@h:6379/0"),
    ("amqp://u:p%40q@h/%2f", "amqp://u:***@h/%2f"),
    ("mongodb://u:p@h1:1,h2:2/db", "mongodb://u:***@h1:1,h2:2/db"),
    ("postgres+ssl://u:p@[::1]:5432/db", "postgres+ssl://u:***@[::1]:5432/db"),
    ("a://u:p@q@h", "a://u:***@h"),
    ("a://u:p/q@h", "a://u:***@h"),
    ("a://u:/pq@h", "a://u:***@h"),
    ("a://u:p?q#r@h", "a://u:***@h"),
    ("a://u:p://q@h", "a://u:***@h"),
    ("a://u:p@h and b://v:q@i.", "a://u:***@h and b://v:***@i."),
    ("a://u:p@h,b://v:q@i", "a://u:***@h,b://v:***@i"),
    ("http://h:80/x,b://v:q@i", "http://h:80/x,b://v:***@i"),
    ("cannot reach \"redis://:pw@h\": refused", "cannot reach \"redis://:***@h\": refused"),
    ("jdbc:oracle:thin:scott/tiger@//h:1521/x", "jdbc:***@//h:1521/x"),
    ("user:pw@tcp(h:3306)/db", "user:***@tcp(h:3306)/db"),
    ("address \"user:pw@h:80\": no host", "address \"user:***@h:80\": no host"),
    // Key-value strings.
    ("host=h password=secret", "host=h password=***"),
    ("host=h password=secret sslmode=x", "host=h password=*** sslmode=x"),
    ("password = secret host = h", "password = *** host = h"),
    ("password='my secret' host=h", "password='***' host=h"),
    (r"password='it\'s' host=h", "password='***' host=h"),
    ("password='it''s' host=h", "password='***' host=h"),
    ("password='never closed host=h", "password='***"),
    ("Server=h;Pwd=a;b;Connect Timeout=3", "Server=h;Pwd=***;Connect Timeout=3"),
    ("Server=h;Pwd=\"a;b\";Timeout=3;", "Server=h;Pwd=\"***\";Timeout=3;"),
    ("h:6379,password=a,b,ssl=true", "h:6379,password=***,ssl=true"),
    ("sslpassword=x", "sslpassword=***"),
    ("DB_PASSWD=x PGPASSWORD=y", "DB_PASSWD=*** PGPASSWORD=***"),
    ("client-secret=x", "client-secret=***"),
    ("AWS_SECRET_ACCESS_KEY=x", "AWS_SECRET_ACCESS_KEY=***"),
    ("credentials=x", "credentials=***"),
    ("pass=x", "pass=***"),
    // Query strings.
    ("https://h/?api_key=x&a=b&token=y", "https://h/?api_key=***&a=b&token=***"),
    ("https://h/?access_token=x#y", "https://h/?access_token=***"),
    ("https://h/?Signature=x&b", "https://h/?Signature=***"),
    ("GET /?auth=x: refused", "GET /?auth=***: refused"),
    // JSON, Debug and YAML.
    (r#"{"password":"x","host":"h"}"#, r#"{"password":"***","host":"h"}"#),
    (r#"{"url":"r://h?token=x","host":"h"}"#, r#"{"url":"r://h?token=***","host":"h"}"#),
    (r#"{"Token": "a\"b", "n": 1}"#, r#"{"Token": "***", "n": 1}"#),
    (r#"{"password": 1234}"#, r#"{"password": ***}"#),
    (r#""{\"password\":\"a\\\"b\",\"n\":1}""#, r#""{\"password\":\"***\",\"n\":1}""#),
    (r#"Config { user: "u", password: Some("x") }"#, r#"Config { user: "u", password: *** }"#),
    (r#"password: Some( "S3cr et,x", ), host: "h""#, r#"password: ***, host: "h""#),
    (r#"C { password: Some(Password("S3cr et,x")), n: 1 }"#, "C { password: ***, n: 1 }"),
    (r#"C { password: Cow::Borrowed("S3cr et,x") }"#, "C { password: *** }"),
    (r#"C { token: Ok(Token { inner: "a}b c" }), n: 1 }"#, "C { token: ***, n: 1 }"),
    (r#"C { credentials: ("u", "S3cr)x"), n: 1 }"#, "C { credentials: ***, n: 1 }"),
    (r#"C { auth: Basic("u", "S3cr x"), n: 1 }"#, "C { auth: ***, n: 1 }"),
    (r#"C { secret: ["a", "S3cr x"], n: 1 }"#, "C { secret: ***, n: 1 }"),
    (r#"C { password: b"S3cr x", n: 1 }"#, r#"C { password: b"***", n: 1 }"#),
    (r#"C { password: Some("S3cr x"#, "C { password: ***"),
    (r#"auth=Basic("u", "S3cr x") n=1"#, "auth=*** n=1"),
    (r#""{\"auth\":[\"u\",\"S3cr x]\"],\"n\":1}""#, r#""{\"auth\":***,\"n\":1}""#),
    ("password=ab(c host=h", "password=*** host=h"),
    (r#"[("user", "u"), ("password", "S3 cr")]"#, r#"[("user", "u"), ("password", "***")]"#),
    (r#"[("password", Some("S3 cr")), ("n", "1")]"#, r#"[("password", ***), ("n", "1")]"#),
    (r#"["--password", "S3 cr", "-v"]"#, r#"["--password", "***", "-v"]"#),
    (r#""psql" "--password" "S3 cr""#, r#""psql" "--password" "***""#),
    ("password:\n  S3cr\nhost: h", "password:\n  ***\nhost: h"),
    ("password =\n S3cr", "password =\n ***"),
    ("password: |\n  S3cr\nhost: h", "password: ***\nhost: h"),
    ("password: x", "password: ***"),
    ("{'secret' => 'x'}", "{'secret' => '***'}"),
    // Headers.
    ("Authorization: Bearer abc.def", "Authorization: ***"),
    ("authorization=Basic dTpw, x", "authorization=***, x"),
    ("X-Api-Key: abc", "X-Api-Key: ***"),
    ("Authorization: ApiKey S3cr", "Authorization: ***"),
    ("Authorization: Digest username=\"u\", response=\"S3\"", "Authorization: ***\""),
    ("Cookie: a=S3; b=cr, x", "Cookie: ***, x"),
    ("x-auth-key: S3cr", "x-auth-key: ***"),
    // Other names.
    ("AccountName=n;AccountKey=S3cr==;x=1", "AccountName=n;AccountKey=***;x=1"),
    ("session_key=S3 encryption_key=cr", "session_key=*** encryption_key=***"),
    ("api.key=S3 passcode=cr jwt=x bearer=y", "api.key=*** passcode=*** jwt=*** bearer=***"),
    ("user[password]=S3cr&x=1", "user[password]=***&x=1"),
    ("user%5Bpassword%5D=S3cr&x=1", "user%5Bpassword%5D=***&x=1"),
    // Commands.
    ("AUTH S3cr", "AUTH ***"),
    ("\"AUTH user S3cr\"", "\"AUTH ***\""),
    ("psql --password S3cr -h h", "psql --password *** -h h"),
    ("psql --password 'S3 cr' -h h", "psql --password '***' -h h"),
    // XML.
    ("<password>S3 cr</password><n>1</n>", "<password>***</password><n>1</n>"),
    ("<password>S3 cr", "<password>***"),
    ("<password><![CDATA[S3<cr]]></password>", "<password>***</password>"),
    // White space in a password.
    (r"password=a\ S3cr host=h", "password=*** host=h"),
    ("postgres://u:aa S3cr@h and more", "postgres://u:***@h and more"),
    ("postgres://u:S3\ncr@h", "postgres://u:***@h"),
    // User names of other kinds, and where no URL is looked for.
    ("ü:S3cr@h", "ü:***@h"),
    ("user!:S3cr@h", "user!:***@h"),
    ("用户:S3cr@h", "用户:***@h"),
    ("http://h:80/a;u:S3cr@h", "http://h:80/a;u:***@h"),
    ("http://proxy:8080/http://u:S3cr@h", "http://proxy:8080/http://u:***@h"),
    ("http://u:S3/x://cr@h", "http://u:***@h"),
    ("http://u:S3@/x://cr@h", "http://u:***@h"),
    // Not of ASCII.
    ("pässword=ü password=größe ü", "pässword=ü password=*** ü"),
    ("a://ü:ö@ä", "a://ü:***@ä"),
];

/// Texts without one.
const KEEPS: &[&str] = &[
    "",
    "db.internal:5432",
    "[fe80::1%3]:80",
    "/run/redis.sock",
    "http://h:8080/@user/x?mail=a@b.c",
    "http://[::1]:80/@x",
    "ssh://git@h/x",
    "git@h:22/x",
    "postgres://user@h/db",
    "postgres://user:@h/db",
    "postgres://user:***@h/db?token=***",
    "bob@example.com",
    "{\"mail\":\"bob@example.com\"}",
    "password authentication failed for user \"bob\"",
    "auth:8080",
    "my-token:443: connection refused",
    "address \"auth\": the port is missing",
    "auth::login failed",
    "auth://h:80",
    "key=user x=1",
    "password=",
    "password=''",
    "password: None",
    "{\"token\":null}",
    "connect failed after 3ms: Connection refused (os error 111)",
    "größer: 5 = 5",
    "password-service:8443",
    "password-service:8443: connection refused",
    "cannot reach pwd:5432, nor (apikeys:80) or [auth-key:1] at passwords:443/x",
    "Access denied for user 'u'@'h' (using password: YES)",
    "Access denied for user 'u'@'h' (using password: NO)",
    "unknown field `password`, expected one of `user`, `token`, `host`",
    "wrong \"password\", \"user\"",
    "ERR AUTH <password> called without any password",
    "AUTH failed: WRONGPASS invalid username-password pair",
    "--password --verbose",
    "db.key=5",
];

#[test]
fn what_stands_where_secrets_stand_is_hidden() {
    for (text, shown) in HIDES {
        assert_eq!(redact(text), *shown, "of: {text}");
    }
}

#[test]
fn what_holds_no_secret_is_not_even_copied() {
    for text in KEEPS {
        assert!(matches!(redact(text), Cow::Borrowed(same) if same == *text), "{}", redact(text));
    }
}

#[test]
fn what_is_hidden_once_stays_as_it_is() {
    for (text, _) in HIDES {
        let once = redact(text);
        assert_eq!(redact(&once), once, "of: {text}");
    }
}

#[test]
fn it_displays_itself_without_its_secrets_and_on_one_line() {
    let shown = Redacted("password=\"a b\" of a://u:p@h");
    assert_eq!(shown.to_string(), "password=\"***\" of a://u:***@h");
    assert_eq!(Redacted("\nline 1\r\n  line 2: a\n\n").to_string(), "line 1 line 2: a");
    assert_eq!(format!("{:?}", Redacted("a://u:p@h \"x\"")), r#""a://u:***@h \"x\"""#);
}

#[test]
fn lines_are_joined_before_secrets_are_looked_for() {
    let shown = Redacted("C {\n    password: Some(\n        \"S3cr et\",\n    ),\n}").to_string();
    assert_eq!(shown, "C { password: ***, }");
    assert_eq!(Redacted("password:\n  S3cr").to_string(), "password: ***");
    assert_eq!(Redacted("cannot reach a://u:S3\ncr@h").to_string(), "cannot reach a://u:***@h");
}

#[test]
fn what_a_terminal_would_obey_is_shown_as_space() {
    let shown = Redacted("a\u{1b}[31mb\u{85}c\u{2028}d\u{2029}e\tf\0g\u{202e}h").to_string();
    assert_eq!(shown, "a [31mb c d e f g h");
    let within = Redacted("password=S3\u{1}cr\u{2028}x host=h").to_string();
    assert_eq!(within, "password=*** host=h", "it does not end a secret");
}

#[test]
fn a_long_text_is_cut_and_no_secret_with_it() {
    let fits = "é".repeat(MOST_SHOWN / 2);
    assert_eq!(Redacted(&fits).to_string(), fits);
    let long = format!("a{}", "é".repeat(1 << 20));
    let shown = Redacted(&long).to_string();
    assert!(shown.len() <= MOST_SHOWN + '…'.len_utf8() && shown.ends_with("é…"), "{shown}");
    // The secret begins anywhere, and is whole, or goes on behind what is looked at.
    for len in [40, MOST_READ, 100 * MOST_READ] {
        let secret = "S3cr".repeat(len / 4);
        for place in (0..MOST_READ + 8).step_by(97) {
            for (before, after) in [
                ("a://u:", "@h"),
                ("u:", "@h"),
                ("password='", "'"),
                ("password: Some(\"", "\")"),
                ("(\"password\", \"", "\")"),
                ("<password>", "</password>"),
            ] {
                let text = format!("{} {before}{secret}{after}", "x ".repeat(place / 2));
                let shown = Redacted(&text).to_string();
                assert!(!shown.contains("S3"), "{before} at {place}, {len} long: {shown}");
            }
        }
    }
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % 1_000_003).unwrap() % limit
    }

    fn of<'a>(&mut self, these: &[&'a str]) -> &'a str {
        these[self.below(these.len())]
    }

    /// Begins and ends with letters, so that no part of a shape ends up in it.
    fn secret(&mut self, with: &[&str]) -> String {
        let len = 4 + self.below(12);
        let middle: String = (0..len).map(|_| self.of(with)).collect();
        format!("Zq{middle}qZ")
    }
}

const LETTERS: &[&str] = &["a", "B", "7", "é", "x", "Q"];
/// What white space and ends may follow, but no other key.
const ODD: &[&str] = &["a", "7", "@", ":", "/", "?", "#", "!", "$", "%", "*", "+", "-", ".", "~"];
const ANY: &[&str] = &["a", "7", " ", "@", "=", "&", ";", ",", ":", "/", "(", "]", "\\", "\"", "'"];

const NAMES: &[&str] = &[
    "password",
    "PASSWORD",
    "passwd",
    "Pwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "access_key",
    "auth",
    "authorization",
    "credential",
    "credentials",
    "sslpassword",
    "refresh_token",
    "client_secret",
    "X-Api-Key",
];

/// Something to debug.
#[derive(Debug)]
#[expect(dead_code, reason = "only its Debug is of use")]
struct Config {
    name: String,
    value: (String, String),
}

/// A text around a secret.
fn shape(random: &mut Random) -> (String, String) {
    let name = random.of(NAMES);
    let user = random.of(&["", "user", "a.b", "x%40y"]);
    let scheme = random.of(&["postgres", "redis", "http", "git+ssh"]);
    let odd = random.secret(ODD);
    let plain = random.secret(LETTERS);
    let any = random.secret(ANY);
    let sql = any.replace('\\', r"\\").replace('\'', r"\'");
    let config = Config { name: any.clone(), value: (any.clone(), any.clone()) };
    match random.below(18) {
        0 => (format!("{scheme}://{user}:{odd}@host:80/db?x=1"), odd),
        1 => (format!("{scheme}://{user}:{odd}@[::1]/"), odd),
        2 => (format!("http://h:1/x,{scheme}://{user}:{plain}@h"), plain),
        3 => (format!("host=h {name}={odd} port=5"), odd),
        4 => (format!("{name} = '{sql}' host=h"), any),
        5 => (format!("Server=h;{name}={plain};Port=5"), plain),
        6 => (format!("http://h/p?a=b&{name}={plain}&c=d#e"), plain),
        7 => (format!("{{\"{name}\":{any:?},\"host\":\"h\"}}"), any),
        8 => (format!("{:?}", format!("{{\"{name}\": {any:?}}}")), any),
        9 => (format!("Config {{ host: \"h\", {name}: Some({any:?}) }}"), any),
        10 => (format!("Config {{ {name}: {:#?}, n: 1 }}", Some(config)), any),
        11 => (format!("Config {{ {name}: {:?}, n: 1 }}", Ok::<_, ()>(Some(config))), any),
        12 => (format!("{:#?}", [("user", "u"), (name, &*any)]), any),
        13 => (format!("{:?}", [(name, Some(&*any)), ("n", None)]), any),
        14 => (format!("{{ \"{name}\": {:?} }}", ["u", &*any]), any),
        15 => (format!("{:?}", format!("{{ \"{name}\": {:?} }}", [Some(&*any)])), any),
        16 => (format!("{name}:\n    {any:?}\nhost: h"), any),
        _ => (format!("<{name}>{plain}</{name}> and user[{name}]={odd}"), plain),
    }
}

#[test]
fn whatever_it_is_and_wherever_it_stands_a_secret_is_never_shown() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        let ((mut text, secret), (other, second)) = (shape(&mut random), shape(&mut random));
        if random.below(3) == 0 {
            text = format!("cannot connect to {text}: refused; then {other}");
        }
        let shown = redact(&text);
        assert!(!shown.contains(&secret) && !shown.contains(&second), "{text}\n{shown}");
        let line = Redacted(&text).to_string();
        assert!(!line.contains("Zq") && !line.contains("qZ"), "{text}\n{line}");
        // Nor a part of one that was cut short.
        assert!(!shown.contains("Zq") && !shown.contains("qZ"), "{text}\n{shown}");
        assert_eq!(redact(&shown), shown, "{text}");
    }
}

#[test]
fn any_text_is_taken() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let parts = [ANY, ODD, LETTERS, NAMES, &["://", "Some(", "Bearer ", "\n", "''"]].concat();
    for _ in 0..20_000 {
        let text: String = (0..random.below(30)).map(|_| random.of(&parts)).collect();
        let shown = redact(&text);
        assert!(shown == text || shown.contains(HIDDEN), "{text}");
    }
}

#[test]
fn a_long_text_of_any_kind_is_looked_through_in_one_go() {
    const LONG: usize = 200_000;
    for (begin, repeated) in [
        ("password=", ")"),
        ("password=", "\\"),
        ("password=", "\\ "),
        ("password=x", "\""),
        ("password='", "'"),
        ("", "pw=a&"),
        ("", "pw=a,"),
        ("", "pw=a("),
        ("", "pw: a("),
        ("", "pw=((\""),
        ("", "pw=b\""),
        ("", "pw:"),
        ("", "pw "),
        ("pw=", ","),
        ("pw=", ",a"),
        ("pw=x,", "a "),
        ("pw=", " "),
        ("", "pw= ( "),
        ("", "<pw>"),
        ("", "<pw>a"),
        ("", "(\"pw\", "),
        ("", "\"--pw\""),
        ("", "--pw "),
        ("", "AUTH "),
        ("", "AUTH a: "),
        ("Cookie: ", "a=b; "),
        ("", "Cookie: ,"),
        ("", "auth=Bearer "),
        ("", "Authorization: a "),
        ("", "api.key."),
        ("", "a://u:x "),
        ("", "a://"),
        ("", "a://u:1,"),
        ("", "/a://u:1"),
        ("a://u:x", "@"),
        ("", "u:x@ "),
        ("", "a"),
        ("", "é"),
        ("password: ", "("),
        ("password: ", "(\""),
        ("password: ", "('"),
    ] {
        let text = format!("{begin}{}", repeated.repeat(LONG / repeated.len()));
        let shown = redact(&text);
        assert!(shown.len() <= 3 * text.len(), "{begin}{repeated}");
    }
}

#[test]
fn what_is_said_not_to_be_found_is_not() {
    for text in [
        "https://token@h",
        "a://u:12/pw@h",
        "a://u:1#pw@h",
        "a://u:1?pw@h",
        "password:1234",
        "the password pw is wrong",
    ] {
        assert_eq!(redact(text), text, "then the page of this module can say so");
    }
}
