"""Files, the network, and processes: work for an activity."""

from __future__ import annotations

from typing import ClassVar

from .outside import Outside, OutsideRule, table

_ACTIVITY = "do it in an activity, and `ctx.call_activity` that"
_ENTITY = (
    "let an orchestration do it in an activity and pass in the result, or await an async client"
)
_ENTITY_THREAD = "let an orchestration do it in an activity and pass in the result"

_FILE = Outside("goes to the file system", _ACTIVITY, _ENTITY_THREAD, awaitable=True)
_FILES = Outside(
    "goes to the file system", _ACTIVITY, _ENTITY_THREAD, awaitable=True, is_whole=True
)
_NETWORK = Outside("goes to the network", _ACTIVITY, _ENTITY, awaitable=True)
_NETWORKS = Outside("goes to the network", _ACTIVITY, _ENTITY, awaitable=True, is_whole=True)
_PROCESS = Outside("runs another process", _ACTIVITY, _ENTITY_THREAD, awaitable=True)
_PROCESSES = Outside(
    "runs another process", _ACTIVITY, _ENTITY_THREAD, awaitable=True, is_whole=True
)


class Files(OutsideRule):
    """Reading and writing files, and looking for them."""

    code = "PDU005"
    title = "A file is read, written or looked for"
    names: ClassVar = {
        "builtins.open": _FILE,
        **table("open open_code FileIO", _FILE, "io."),
        "codecs.open": _FILE,
        **table(
            "open fdopen read write listdir scandir walk fwalk stat lstat fstat mkdir makedirs "
            "remove unlink rmdir removedirs rename renames replace link symlink readlink chmod "
            "chown chdir truncate ftruncate access utime mkfifo statvfs sync fsync sendfile "
            "copy_file_range",
            _FILE,
            "os.",
        ),
        **table(
            "exists lexists isfile isdir islink ismount getsize getmtime getatime getctime "
            "realpath abspath samefile expanduser",
            _FILE,
            "os.path.",
        ),
        **table(
            "absolute chmod exists expanduser glob group hardlink_to is_block_device is_dir is_fifo "
            "is_file is_mount is_socket is_symlink iterdir lchmod lstat mkdir open owner read_bytes "
            "read_text readlink rename replace resolve rglob rmdir samefile stat symlink_to touch "
            "unlink walk write_bytes write_text copy move copy_into move_into",
            _FILE,
            "pathlib.Path.",
        ),
        "shutil": _FILES,
        "tempfile": _FILES,
        **table("glob iglob", _FILE, "glob."),
        "fileinput": _FILES,
        "linecache": _FILES,
        "shelve": _FILES,
        "dbm": _FILES,
        "mmap.mmap": _FILE,
        "sqlite3": _FILES,
        "aiosqlite": _FILES,
        "aiofiles": _FILES,
        "configparser.ConfigParser.read": _FILE,
        **table("load_dotenv dotenv_values find_dotenv", _FILE, "dotenv."),
        "gzip.open": _FILE,
        "bz2.open": _FILE,
        "lzma.open": _FILE,
        "tarfile.open": _FILE,
        "zipfile.ZipFile": _FILE,
        "anyio.open_file": _FILE,
        "trio.open_file": _FILE,
        "anyio.Path": _FILES,
        "trio.Path": _FILES,
        "numpy.load": _FILE,
        "numpy.save": _FILE,
        **table("read_csv read_parquet read_excel read_json read_sql", _FILE, "pandas."),
    }

    def find(self, name: str) -> Outside | None:
        return None if _is_plain(name) and name not in self.names else super().find(name)


class Network(OutsideRule):
    """Requests, sockets, databases and services."""

    code = "PDU006"
    title = "The network is used"
    names: ClassVar = {
        **table(
            "socket create_connection create_server getaddrinfo gethostbyaddr gethostbyname gethostbyname_ex "
            "getnameinfo socketpair fromfd",
            _NETWORKS,
            "socket.",
        ),
        **table("smtplib.SMTP smtplib.SMTP_SSL ftplib.FTP ftplib.FTP_TLS imaplib.IMAP4", _NETWORKS),
        **table("imaplib.IMAP4_SSL poplib.POP3 poplib.POP3_SSL", _NETWORKS),
        "urllib.request": _NETWORKS,
        "http.client": _NETWORKS,
        "http.server": _NETWORKS,
        **table(
            "ftplib smtplib imaplib poplib nntplib telnetlib xmlrpc.client socketserver", _NETWORKS
        ),
        **table(
            "get post put patch delete head options request Session session", _NETWORKS, "requests."
        ),
        **table(
            "get post put patch delete head options request stream Client AsyncClient",
            _NETWORKS,
            "httpx.",
        ),
        **table("request ClientSession TCPConnector", _NETWORKS, "aiohttp."),
        **table(
            "PoolManager HTTPConnectionPool HTTPSConnectionPool ProxyManager request",
            _NETWORKS,
            "urllib3.",
        ),
        **table("boto3 botocore aioboto3 aiobotocore", _NETWORKS),
        **table("redis aioredis memcache pymemcache valkey", _NETWORKS),
        **table("asyncpg pymysql aiomysql MySQLdb pyodbc cx_Oracle oracledb pymssql", _NETWORKS),
        **table("connect AsyncConnection Connection", _NETWORKS, "psycopg."),
        **table("connect pool", _NETWORKS, "psycopg2."),
        "psycopg_pool": _NETWORKS,
        **table("dns ldap3 asyncssh pysftp minio hvac neo4j tweepy ollama litellm", _NETWORKS),
        **table("docker kubernetes elasticsearch_dsl pika.adapters", _NETWORKS),
        **table("objects save delete refresh_from_db", _NETWORKS, "django.db.models.Model."),
        "mysql.connector": _NETWORKS,
        **table("MongoClient AsyncMongoClient", _NETWORKS, "pymongo."),
        "motor": _NETWORKS,
        **table(
            "create_engine engine.Engine engine.Connection Engine Connection",
            _NETWORKS,
            "sqlalchemy.",
        ),
        **table(
            "create_async_engine AsyncEngine AsyncConnection AsyncSession async_sessionmaker",
            _NETWORKS,
            "sqlalchemy.ext.asyncio.",
        ),
        **table("Session sessionmaker scoped_session", _NETWORKS, "sqlalchemy.orm."),
        **table("KafkaProducer KafkaConsumer", _NETWORKS, "kafka."),
        **table("Producer Consumer", _NETWORKS, "confluent_kafka."),
        "aiokafka": _NETWORKS,
        **table("BlockingConnection SelectConnection", _NETWORKS, "pika."),
        "aio_pika": _NETWORKS,
        "nats.connect": _NETWORKS,
        **table("Context", _NETWORKS, "zmq."),
        **table("insecure_channel secure_channel", _NETWORK, "grpc."),
        **table("insecure_channel secure_channel", _NETWORK, "grpc.aio."),
        **table("stripe twilio sendgrid", _NETWORKS),
        **table("OpenAI AsyncOpenAI AzureOpenAI AsyncAzureOpenAI", _NETWORKS, "openai."),
        **table("Anthropic AsyncAnthropic", _NETWORKS, "anthropic."),
        **table("WebClient WebhookClient", _NETWORKS, "slack_sdk."),
        **table("connect serve", _NETWORK, "websockets."),
        **table("create_connection WebSocketApp", _NETWORKS, "websocket."),
        "paramiko": _NETWORKS,
        "google.cloud": _NETWORKS,
        **table("azure.storage azure.cosmos azure.servicebus azure.identity", _NETWORKS),
        **table("Elasticsearch AsyncElasticsearch", _NETWORKS, "elasticsearch."),
        **table("connect_tcp connect_unix create_tcp_listener getaddrinfo", _NETWORK, "anyio."),
        **table("open_tcp_stream open_unix_socket serve_tcp", _NETWORK, "trio."),
        **table("open_connection open_unix_connection start_server", _NETWORK, "asyncio."),
        "webbrowser.open": _NETWORK,
    }

    def find(self, name: str) -> Outside | None:
        return None if _is_plain(name) and name not in self.names else super().find(name)


class Processes(OutsideRule):
    """Other processes."""

    code = "PDU007"
    title = "Another process is run"
    names: ClassVar = {
        "subprocess": _PROCESSES,
        **table(
            "system popen fork forkpty kill killpg posix_spawn posix_spawnp execl execle execlp "
            "execlpe execv execve execvp execvpe spawnl spawnle spawnlp spawnlpe spawnv spawnve "
            "spawnvp spawnvpe startfile wait waitpid",
            _PROCESS,
            "os.",
        ),
        **table("create_subprocess_exec create_subprocess_shell", _PROCESS, "asyncio."),
        **table("run_process open_process", _PROCESS, "anyio."),
        "trio.run_process": _PROCESS,
        "trio.lowlevel.open_process": _PROCESS,
        "pty": _PROCESSES,
        "sh": _PROCESSES,
        "pexpect": _PROCESSES,
        "multiprocessing.Process": _PROCESSES,
        "multiprocessing.Pool": _PROCESSES,
        "multiprocessing.pool.Pool": _PROCESSES,
        "anyio.to_process.run_sync": _PROCESS,
    }

    def find(self, name: str) -> Outside | None:
        return None if _is_plain(name) and name not in self.names else super().find(name)


def _is_plain(name: str) -> bool:
    """Whether it is an exception of such a library, or another name that stands for itself."""
    last = name.rpartition(".")[2]
    return last.endswith(("Error", "Exception", "Warning", "Expired")) or last.isupper()
