"""Columns of FOCUS data sets: names, types and allowed values in the versions 1.2 and 1.4 of the FinOps Open Cost and Usage Specification.

Only the columns that a statement can fill are here, and those that the specification demands of a provider with resources,
regions, sub accounts, tags, negotiated prices and measured usage. Own columns begin with ``x_``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ColumnType = Literal["text", "decimal", "time", "json"]
FocusVersion = Literal["1.2", "1.4"]
FocusDataset = Literal["cost-and-usage", "billing-period", "invoice-detail"]


@dataclass(frozen=True, slots=True)
class FocusColumn:
    """A column; ``nullable`` as the specification says, not as Meter fills it."""

    name: str
    type: ColumnType = "text"
    nullable: bool = True


def _needed(name: str, type: ColumnType = "text") -> FocusColumn:
    return FocusColumn(name, type, nullable=False)


_CORE = (
    FocusColumn("AvailabilityZone"),
    _needed("BilledCost", "decimal"),
    _needed("BillingAccountId"),
    FocusColumn("BillingAccountName"),
    _needed("BillingCurrency"),
    _needed("BillingPeriodEnd", "time"),
    _needed("BillingPeriodStart", "time"),
    _needed("ChargeCategory"),
    FocusColumn("ChargeClass"),
    FocusColumn("ChargeDescription"),
    _needed("ChargeFrequency"),
    _needed("ChargePeriodEnd", "time"),
    _needed("ChargePeriodStart", "time"),
    FocusColumn("ConsumedQuantity", "decimal"),
    FocusColumn("ConsumedUnit"),
    _needed("ContractedCost", "decimal"),
    FocusColumn("ContractedUnitPrice", "decimal"),
    _needed("EffectiveCost", "decimal"),
    FocusColumn("InvoiceId"),
    _needed("InvoiceIssuerName"),
    _needed("ListCost", "decimal"),
    FocusColumn("ListUnitPrice", "decimal"),
    FocusColumn("PricingCategory"),
    _needed("PricingCurrency"),
    FocusColumn("PricingCurrencyContractedUnitPrice", "decimal"),
    _needed("PricingCurrencyEffectiveCost", "decimal"),
    FocusColumn("PricingCurrencyListUnitPrice", "decimal"),
    FocusColumn("PricingQuantity", "decimal"),
    FocusColumn("PricingUnit"),
    FocusColumn("RegionId"),
    FocusColumn("RegionName"),
    FocusColumn("ResourceId"),
    FocusColumn("ResourceName"),
    FocusColumn("ResourceType"),
    _needed("ServiceCategory"),
    _needed("ServiceName"),
    _needed("ServiceSubcategory"),
    FocusColumn("SkuId"),
    FocusColumn("SkuMeter"),
    FocusColumn("SkuPriceDetails", "json"),
    FocusColumn("SkuPriceId"),
    FocusColumn("SubAccountId"),
    FocusColumn("SubAccountName"),
    FocusColumn("Tags", "json"),
)

_ONLY: Mapping[FocusVersion, tuple[FocusColumn, ...]] = {
    # Without CommitmentDiscountStatus the rules of 1.2 about ConsumedQuantity cannot be evaluated.
    "1.2": (FocusColumn("CommitmentDiscountStatus"), _needed("ProviderName"), _needed("PublisherName")),
    "1.4": (FocusColumn("HostProviderName"), FocusColumn("InvoiceDetailId"), _needed("ServiceProviderName")),
}

_OWN = (
    FocusColumn("x_AmendsLine"),
    FocusColumn("x_AmendsStatementId"),
    FocusColumn("x_LineKind"),
    FocusColumn("x_StatementLine"),
    FocusColumn("x_TaxCategory"),
    FocusColumn("x_Tier"),
)

COST_AND_USAGE: Mapping[FocusVersion, tuple[FocusColumn, ...]] = {
    version: (*sorted((*_CORE, *only), key=lambda column: column.name), *_OWN) for version, only in _ONLY.items()
}
"""The columns of the Cost and Usage data set, by version."""

BILLING_PERIOD = (
    _needed("BillingPeriodCreated", "time"),
    _needed("BillingPeriodEnd", "time"),
    _needed("BillingPeriodLastUpdated", "time"),
    _needed("BillingPeriodStart", "time"),
    _needed("BillingPeriodStatus"),
    _needed("InvoiceIssuerName"),
)
"""The columns of the Billing Period data set of version 1.4."""

INVOICE_DETAIL = (
    _needed("BilledCost", "decimal"),
    _needed("BillingAccountId"),
    _needed("BillingCurrency"),
    _needed("BillingPeriodEnd", "time"),
    _needed("BillingPeriodStart", "time"),
    _needed("ChargeCategory"),
    _needed("InvoiceDetailCreated", "time"),
    FocusColumn("InvoiceDetailDescription"),
    FocusColumn("InvoiceDetailGrain", "json"),
    _needed("InvoiceDetailId"),
    _needed("InvoiceDetailLastUpdated", "time"),
    _needed("InvoiceId"),
    FocusColumn("InvoiceIssueDate", "time"),
    _needed("InvoiceIssueStatus"),
    _needed("InvoiceIssuerName"),
    FocusColumn("PaymentDueDate", "time"),
    _needed("PaymentTerms"),
    _needed("ReferenceInvoiceId"),
)
"""The columns of the Invoice Detail data set of version 1.4."""

CHARGE_CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")
CHARGE_FREQUENCIES = ("One-Time", "Recurring", "Usage-Based")
PRICING_CATEGORIES = ("Standard", "Dynamic", "Committed", "Other")

SERVICE_SUBCATEGORIES: Mapping[str, tuple[str, ...]] = {
    "AI and Machine Learning": (
        "AI Platforms",
        "Bots",
        "Generative AI",
        "Machine Learning",
        "Natural Language Processing",
    ),
    "Analytics": (
        "Analytics Platforms",
        "Business Intelligence",
        "Data Processing",
        "Search",
        "Streaming Analytics",
    ),
    "Business Applications": ("Productivity and Collaboration",),
    "Compute": ("Containers", "End User Computing", "Quantum Compute", "Serverless Compute", "Virtual Machines"),
    "Databases": (
        "Caching",
        "Data Warehouses",
        "Ledger Databases",
        "NoSQL Databases",
        "Relational Databases",
        "Time Series Databases",
    ),
    "Developer Tools": (
        "Developer Platforms",
        "Continuous Integration and Deployment",
        "Development Environments",
        "Source Code Management",
        "Quality Assurance",
    ),
    "Identity": ("Identity and Access Management",),
    "Integration": ("API Management", "Messaging", "Workflow Orchestration"),
    "Internet of Things": ("IoT Analytics", "IoT Platforms"),
    "Management and Governance": (
        "Architecture",
        "Compliance",
        "Cost Management",
        "Data Governance",
        "Disaster Recovery",
        "Endpoint Management",
        "Observability",
        "Support",
    ),
    "Media": ("Content Creation", "Gaming", "Media Streaming", "Mixed Reality"),
    "Migration": ("Data Migration", "Resource Migration"),
    "Mobile": (),
    "Multicloud": ("Multicloud Integration",),
    "Networking": (
        "Application Networking",
        "Content Delivery",
        "Network Connectivity",
        "Network Infrastructure",
        "Network Routing",
        "Network Security",
    ),
    "Security": ("Secret Management", "Security Posture Management", "Threat Detection and Response"),
    "Storage": ("Backup Storage", "Block Storage", "File Storage", "Object Storage", "Storage Platforms"),
    "Web": ("Application Platforms",),
    "Other": (),
}
"""The subcategories of each service category, besides ``Other (…)``, which each of them has."""


def subcategory_of(category: str, service: str) -> str:
    """Return the service subcategory of a service: its own name if that is one of the category, else ``Other (category)``."""
    return service if service in SERVICE_SUBCATEGORIES[category] else f"Other ({category})"
