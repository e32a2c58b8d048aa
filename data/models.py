"""The part of Quay's tables that we read and write, with Quay's names.

Source: the DDL of a database at Quay's schema revision 9fa37f66a9b6. Columns that we neither read
nor must fill are left out; a column that is NOT NULL without a default in the DDL is here, because
an INSERT has to name it. Foreign keys are plain integer columns: peewee's lazy loading would hide
SQL statements that the tests count.

Tables are created only for an embedded database of our own (`create_tables`), never in a Quay that
exists.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from peewee import (
    SQL,
    AutoField,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    CharField,
    DatabaseProxy,
    DateTimeField,
    Entity,
    IntegerField,
    Model,
    Node,
    NodeList,
    TextField,
)

database_proxy = DatabaseProxy()


def utcnow() -> datetime:
    """The time as Quay stores it: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def new_uuid() -> str:
    return str(uuid.uuid4())


def references(table: str) -> list[Node]:
    return [NodeList((SQL("REFERENCES"), Entity(table), SQL("(id)")))]


class QuayModel(Model):
    class Meta:
        database = database_proxy
        legacy_table_names = False


class User(QuayModel):
    """A user or, with `organization`, an organisation; the namespace of repositories."""

    id = AutoField()
    uuid = CharField(max_length=36, null=True, default=new_uuid)
    username = CharField(unique=True)
    email = CharField(default=new_uuid)
    verified = BooleanField(default=True)
    organization = BooleanField(default=False, index=True)
    robot = BooleanField(default=False)
    invoice_email = BooleanField(default=False)
    invalid_login_attempts = IntegerField(default=0)
    last_invalid_login = DateTimeField(default=utcnow)
    removed_tag_expiration_s = BigIntegerField(default=1209600)
    enabled = BooleanField(default=True)

    class Meta:
        table_name = "user"


class Visibility(QuayModel):
    id = AutoField()
    name = CharField(unique=True)


class RepositoryKind(QuayModel):
    id = AutoField()
    name = CharField(unique=True)

    class Meta:
        table_name = "repositorykind"


class Repository(QuayModel):
    id = AutoField()
    namespace_user_id = IntegerField(null=True, index=True, constraints=references("user"))
    name = CharField()
    visibility_id = IntegerField(index=True, constraints=references("visibility"))
    description = TextField(null=True)
    badge_token = CharField(default=new_uuid)
    kind_id = IntegerField(index=True, constraints=references("repositorykind"))
    trust_enabled = BooleanField(default=False)
    state = IntegerField(default=0, index=True)

    class Meta:
        indexes = ((("namespace_user_id", "name"), True),)


class ProxyCacheConfig(QuayModel):
    """Makes an organisation a proxy of `upstream_registry` (`host[:port][/namespace]`)."""

    id = AutoField()
    organization_id = IntegerField(unique=True, constraints=references("user"))
    creation_date = DateTimeField(default=utcnow)
    upstream_registry = CharField(max_length=2048)
    upstream_registry_username = CharField(max_length=4096, null=True)
    upstream_registry_password = CharField(max_length=4096, null=True)
    expiration_s = IntegerField(null=True, default=86400)
    insecure = BooleanField(default=False)

    class Meta:
        table_name = "proxycacheconfig"


class MediaType(QuayModel):
    """Ids differ between installations, so media types are looked up by name."""

    id = AutoField()
    name = CharField(unique=True)

    class Meta:
        table_name = "mediatype"


class Manifest(QuayModel):
    id = AutoField()
    repository_id = IntegerField(index=True, constraints=references("repository"))
    digest = CharField(index=True)
    media_type_id = IntegerField(index=True, constraints=references("mediatype"))
    manifest_bytes = TextField()
    config_media_type = CharField(null=True)
    layers_compressed_size = BigIntegerField(null=True)
    subject = CharField(null=True)
    subject_backfilled = BooleanField(null=True)
    artifact_type = CharField(null=True)
    artifact_type_backfilled = BooleanField(null=True)

    class Meta:
        indexes = ((("repository_id", "digest"), True),)


class ManifestChild(QuayModel):
    """Links a manifest list to one of its children."""

    id = AutoField()
    repository_id = IntegerField(index=True, constraints=references("repository"))
    manifest_id = IntegerField(index=True, constraints=references("manifest"))
    child_manifest_id = IntegerField(index=True, constraints=references("manifest"))

    class Meta:
        table_name = "manifestchild"
        indexes = ((("manifest_id", "child_manifest_id"), True),)


class TagKind(QuayModel):
    id = AutoField()
    name = CharField(unique=True)

    class Meta:
        table_name = "tagkind"


class Tag(QuayModel):
    """A tag is alive while `lifetime_end_ms` is NULL or in the future (milliseconds since 1970)."""

    id = AutoField()
    name = CharField()
    repository_id = IntegerField(index=True, constraints=references("repository"))
    manifest_id = IntegerField(null=True, index=True, constraints=references("manifest"))
    lifetime_start_ms = BigIntegerField()
    lifetime_end_ms = BigIntegerField(null=True, index=True)
    hidden = BooleanField(default=False)
    reversion = BooleanField(default=False)
    tag_kind_id = IntegerField(index=True, constraints=references("tagkind"))
    linked_tag_id = IntegerField(null=True)
    immutable = BooleanField(default=False)

    class Meta:
        indexes = ((("repository_id", "name", "lifetime_end_ms"), True),)


class ImageStorage(QuayModel):
    """A blob. Without an ImageStoragePlacement it is a placeholder; `uploading` says nothing."""

    id = AutoField()
    uuid = CharField(unique=True, default=new_uuid)
    image_size = BigIntegerField(null=True)
    uncompressed_size = BigIntegerField(null=True)
    uploading = BooleanField(null=True, default=True)
    cas_path = BooleanField(default=True)
    content_checksum = CharField(null=True, index=True)

    class Meta:
        table_name = "imagestorage"


class ImageStorageLocation(QuayModel):
    id = AutoField()
    name = CharField(unique=True)

    class Meta:
        table_name = "imagestoragelocation"


class ImageStoragePlacement(QuayModel):
    """Says that a location holds the bytes of a blob."""

    id = AutoField()
    storage_id = IntegerField(index=True, constraints=references("imagestorage"))
    location_id = IntegerField(index=True, constraints=references("imagestoragelocation"))

    class Meta:
        table_name = "imagestorageplacement"
        indexes = ((("storage_id", "location_id"), True),)


class ManifestBlob(QuayModel):
    """Links a manifest to each of its blobs, the config among them."""

    id = BigAutoField()
    repository_id = IntegerField(index=True, constraints=references("repository"))
    manifest_id = IntegerField(index=True, constraints=references("manifest"))
    blob_id = IntegerField(index=True, constraints=references("imagestorage"))

    class Meta:
        table_name = "manifestblob"
        indexes = ((("manifest_id", "blob_id"), True), (("repository_id", "blob_id"), False))


class UploadedBlob(QuayModel):
    """Keeps Quay's garbage collector off a new blob until `expires_at`."""

    id = BigAutoField()
    repository_id = IntegerField(index=True, constraints=references("repository"))
    blob_id = IntegerField(index=True, constraints=references("imagestorage"))
    uploaded_at = DateTimeField(default=utcnow)
    expires_at = DateTimeField(index=True)

    class Meta:
        table_name = "uploadedblob"


class ManifestSecurityStatus(QuayModel):
    """The status row of a manifest, at most one each; see `data.secscan.status`."""

    id = AutoField()
    manifest_id = IntegerField(unique=True, constraints=references("manifest"))
    repository_id = IntegerField(index=True, constraints=references("repository"))
    index_status = IntegerField(index=True)
    error_json = TextField(default="{}")
    last_indexed = DateTimeField(default=utcnow, index=True)
    indexer_hash = CharField(max_length=128, index=True)
    indexer_version = IntegerField(index=True)
    metadata_json = TextField(default="{}")

    class Meta:
        table_name = "manifestsecuritystatus"


class QueueItem(QuayModel):
    """An item of Quay's own work queue; `state_id` is new on every insert and update."""

    id = AutoField()
    queue_name = CharField(max_length=1024, index=True)
    body = TextField()
    available_after = DateTimeField(default=utcnow)
    available = BooleanField(default=True)
    processing_expires = DateTimeField(null=True)
    retries_remaining = IntegerField(default=5)
    state_id = CharField(unique=True, default=new_uuid)

    class Meta:
        table_name = "queueitem"
        indexes = (
            (("processing_expires", "available"), False),
            (("processing_expires", "queue_name", "available"), False),
        )


class RepositoryNotification(QuayModel):
    """A person's wish to be told of an event (`externalnotificationevent`) in a repository."""

    id = AutoField()
    uuid = CharField(index=True, default=new_uuid)
    repository_id = IntegerField(index=True, constraints=references("repository"))
    event_id = IntegerField(index=True, constraints=references("externalnotificationevent"))
    method_id = IntegerField(default=1)
    title = CharField(null=True)
    config_json = TextField(default="{}")
    event_config_json = TextField(default="{}")
    number_of_failures = IntegerField(default=0)

    class Meta:
        table_name = "repositorynotification"


class ExternalNotificationEvent(QuayModel):
    id = AutoField()
    name = CharField(unique=True)

    class Meta:
        table_name = "externalnotificationevent"


# Columns that a Quay of 3.9 hasn't got yet. They are filled where demo and tests make the rows that
# Quay makes, and never read.
NEWER_COLUMNS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "manifest": frozenset(
            {"subject", "subject_backfilled", "artifact_type", "artifact_type_backfilled"}
        ),
        "tag": frozenset({"immutable"}),
    }
)

ALL_MODELS: tuple[type[QuayModel], ...] = (
    User,
    Visibility,
    RepositoryKind,
    Repository,
    ProxyCacheConfig,
    MediaType,
    Manifest,
    ManifestChild,
    TagKind,
    Tag,
    ImageStorage,
    ImageStorageLocation,
    ImageStoragePlacement,
    ManifestBlob,
    UploadedBlob,
    ManifestSecurityStatus,
    QueueItem,
    ExternalNotificationEvent,
    RepositoryNotification,
)
